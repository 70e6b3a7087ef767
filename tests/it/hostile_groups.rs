//! Defects of the second review about cgroups: ownership, sweeping, nesting, places, each under its
//! name. A hostile or unlucky job or host must not be able to bring any of them back.
