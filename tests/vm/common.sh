# Sourced by the scripts next to it: where the packages are kept, and how failures are reported.

# The exit statuses of the harness itself; that of the program in the VM is passed through.
readonly SETUP_FAILED=91 TIMED_OUT=92 NO_STATUS=93 INCOMPLETE=94

store=${JOBWORKER_VM_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/jobworker-vm}
kernel=${JOBWORKER_VM_KERNEL:-6.12}
tools=$store/tools
image=$store/linux-$kernel/image

fail() { # STATUS MESSAGE...
  local status=$1
  shift
  printf 'tests/vm: %s\n' "$@" >&2
  exit "$status"
}
