//! Defects of the second review about processes: killing, signalling and awaiting them, each under
//! its name. Whatever a job does, its host kills all of it, and says so only when it has.
