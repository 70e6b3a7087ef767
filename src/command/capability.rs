//! Owns [`Capability`]: one of the privileges into which the kernel divides those of root.
//!
//! Invariant: the number is below 64, as many as the kernel's sets have room for. Knows nothing of
//! who has which.

/// A Linux capability, by number; see capabilities(7).
///
/// ```
/// use jobworker::{Capability, Command};
///
/// let mut command = Command::new("/usr/sbin/nginx");
/// command.capability_bounding_set([Capability::NET_BIND_SERVICE, Capability::SETUID]);
/// assert_eq!(Capability::from_raw(10), Some(Capability::NET_BIND_SERVICE));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "CAP_SYS_ADMIN")]
pub struct Capability(u8);

impl Capability {
    /// Change the owner and group of any file.
    pub const CHOWN: Self = Self(0);
    /// Pass over all permission checks on files.
    pub const DAC_OVERRIDE: Self = Self(1);
    /// Pass over the checks that reading files and searching directories need.
    pub const DAC_READ_SEARCH: Self = Self(2);
    /// Do with any file what only its owner may.
    pub const FOWNER: Self = Self(3);
    /// Keep the set-user-ID and set-group-ID bits of a file that is changed.
    pub const FSETID: Self = Self(4);
    /// Send signals to processes of other users.
    pub const KILL: Self = Self(5);
    /// Take any group id and any supplementary groups.
    pub const SETGID: Self = Self(6);
    /// Take any user id.
    pub const SETUID: Self = Self(7);
    /// Change the bounding set and the secure bits.
    pub const SETPCAP: Self = Self(8);
    /// Make files immutable and append-only.
    pub const LINUX_IMMUTABLE: Self = Self(9);
    /// Bind to ports below 1024.
    pub const NET_BIND_SERVICE: Self = Self(10);
    /// Send broadcasts; not used by the kernel.
    pub const NET_BROADCAST: Self = Self(11);
    /// Configure the network.
    pub const NET_ADMIN: Self = Self(12);
    /// Use raw and packet sockets.
    pub const NET_RAW: Self = Self(13);
    /// Lock memory beyond the limit.
    pub const IPC_LOCK: Self = Self(14);
    /// Pass over the permission checks on System V IPC objects.
    pub const IPC_OWNER: Self = Self(15);
    /// Load and unload kernel modules.
    pub const SYS_MODULE: Self = Self(16);
    /// Use I/O ports and raw devices.
    pub const SYS_RAWIO: Self = Self(17);
    /// Change the root directory.
    pub const SYS_CHROOT: Self = Self(18);
    /// Trace processes of other users.
    pub const SYS_PTRACE: Self = Self(19);
    /// Turn process accounting on and off.
    pub const SYS_PACCT: Self = Self(20);
    /// Administer the system: mounts, namespaces, quotas and much more.
    pub const SYS_ADMIN: Self = Self(21);
    /// Reboot, and load another kernel.
    pub const SYS_BOOT: Self = Self(22);
    /// Raise priorities and use real-time scheduling.
    pub const SYS_NICE: Self = Self(23);
    /// Exceed resource limits and quotas.
    pub const SYS_RESOURCE: Self = Self(24);
    /// Set the clock.
    pub const SYS_TIME: Self = Self(25);
    /// Configure terminals.
    pub const SYS_TTY_CONFIG: Self = Self(26);
    /// Make device nodes.
    pub const MKNOD: Self = Self(27);
    /// Take leases on files of other users.
    pub const LEASE: Self = Self(28);
    /// Write to the audit log.
    pub const AUDIT_WRITE: Self = Self(29);
    /// Configure auditing.
    pub const AUDIT_CONTROL: Self = Self(30);
    /// Give capabilities to files.
    pub const SETFCAP: Self = Self(31);
    /// Override mandatory access control.
    pub const MAC_OVERRIDE: Self = Self(32);
    /// Configure mandatory access control.
    pub const MAC_ADMIN: Self = Self(33);
    /// Read and clear the kernel's log.
    pub const SYSLOG: Self = Self(34);
    /// Set timers that wake the system.
    pub const WAKE_ALARM: Self = Self(35);
    /// Prevent the system from suspending.
    pub const BLOCK_SUSPEND: Self = Self(36);
    /// Read the audit log.
    pub const AUDIT_READ: Self = Self(37);
    /// Observe performance; since Linux 5.8.
    pub const PERFMON: Self = Self(38);
    /// Load BPF programs; since Linux 5.8.
    pub const BPF: Self = Self(39);
    /// Checkpoint and restore processes; since Linux 5.9.
    pub const CHECKPOINT_RESTORE: Self = Self(40);

    /// The capability with this number, such as one that is newer than this crate, or `None` when
    /// it is not below 64.
    #[must_use]
    pub const fn from_raw(number: u32) -> Option<Self> {
        match number {
            #[allow(clippy::cast_possible_truncation)]
            0..=63 => Some(Self(number as u8)),
            _ => None,
        }
    }

    /// The number, as the kernel knows it.
    #[must_use]
    pub const fn as_raw(self) -> u32 {
        self.0 as u32
    }
}
