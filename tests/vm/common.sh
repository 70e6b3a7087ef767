# Sourced by the scripts next to it: where the packages are kept, and how failures are reported.

# The exit statuses of the harness itself; that of the program in the VM is passed through.
readonly SETUP_FAILED=91 TIMED_OUT=92 NO_STATUS=93 INCOMPLETE=94

store=${JOBWORKER_VM_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/jobworker-vm}
kernel=${JOBWORKER_VM_KERNEL:-6.12}
# The architecture of the VM, and how Debian calls it.
arch=${JOBWORKER_VM_ARCH:-x86_64}
case $arch in
  x86_64) debian=amd64 ;;
  aarch64) debian=arm64 ;;
  *) printf 'tests/vm: JOBWORKER_VM_ARCH is x86_64 or aarch64\n' >&2; exit $SETUP_FAILED ;;
esac
suffix=''
[[ $arch == x86_64 ]] || suffix=-$arch
tools=$store/tools$suffix
image=$store/linux-$kernel$suffix/image

fail() { # STATUS MESSAGE...
  local status=$1
  shift
  printf 'tests/vm: %s\n' "$@" >&2
  exit "$status"
}
