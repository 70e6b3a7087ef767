//! Defects of the second review about starting programs: users, privileges, signals and the wait
//! for exec, each under its name.
