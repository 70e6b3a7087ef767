# What a developer of this crate runs; `just --list` shows it. CONTRIBUTING.md says what each is for.

# Formats, lints and documentation, as .ci/run checks them.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

# All tests, or those whose names contain a word.
test *names:
    cargo test --all-features -- {{ names }}

# Models of the threads, and with `just sanitizers=1 race` ThreadSanitizer and Miri as well.
sanitizers := ""

race:
    JOBWORKER_SANITIZERS={{ sanitizers }} .ci/race

# Line coverage of the tests; needs cargo-llvm-cov.
coverage *args="--html":
    cargo llvm-cov --all-features {{ args }}

# A fuzz target for some seconds: log_reader, job_life, parsers, record.
fuzz target seconds="60":
    cargo +nightly fuzz run {{ target }} -- -max_total_time={{ seconds }}

# A benchmark, or all; `just bench tailers --quick` is a short one.
bench name="*" *args="":
    cargo bench --bench '{{ name }}' -- {{ args }}

# The same beside other crates: exit, scale, spawn_peers, tails.
bench-peers name="*" *args="":
    cargo bench -p bench-peers --bench '{{ name }}' -- {{ args }}

# All benchmarks in full, with their tables and pictures: BENCHMARKS.md.
bench-all:
    bench-peers/run

# The integration tests on a pure cgroup v2 system, as root and as a user.
vm *names:
    tests/vm/test {{ names }}
    tests/vm/test --unprivileged {{ names }}

# Everything that has to pass before a change lands.
ci:
    .ci/run
