//! Defects of the second review about logs and their tails, each under its name: what a job may do
//! to its log must neither stop the host nor deceive a reader.
