//! Reports what this system offers for running jobs, and what to do about what is missing.
//!
//! `cargo run --release --example doctor`, and with `--json` for programs.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use console::Style;
use jobworker::{Capabilities, Check, Verdict};
use serde_json::json;

use crate::place::PlaceFlags;

#[path = "common/place.rs"]
mod place;
#[path = "common/words.rs"]
mod words;

/// Says what this system offers for running jobs, and what to do about what is missing.
///
/// The exit status is 0 when jobs can be run in cgroups, or with --no-cgroup in any case, and 1
/// when not; 125 when the options are wrong.
#[derive(Parser)]
#[command(name = "doctor", max_term_width = 100)]
struct Options {
    #[command(flatten)]
    place: PlaceFlags,
    /// Print one JSON object, with everything that was found.
    #[arg(long)]
    json: bool,
    /// Check as well whether this program is a launcher of this release.
    #[arg(value_name = "LAUNCHER")]
    launcher: Option<PathBuf>,
}

/// How wide the text is at most, and where nobody knows the width of the screen.
const COLUMNS: usize = 80;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // If this cannot be printed, there is nobody left to report that to.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 125 } else { 0 });
        }
    };
    let mut config = options.place.config();
    if let Some(path) = &options.launcher {
        config.launcher(path);
    }
    let found = Capabilities::probe_with(&config);
    let without = options.place.without_cgroup();
    let text = if options.json { as_json(&found) } else { as_text(&found, without) };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) if without || found.can_run_jobs() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn as_json(found: &Capabilities) -> String {
    let checks: Vec<_> = found
        .checks
        .iter()
        .map(|check| {
            let missing = check.verdict != Verdict::Present;
            json!({
                "name": check.name,
                "verdict": mark(check.verdict),
                "found": found_of(check),
                "needed_for": words::translated(&check.good_for),
                "remedy": missing.then(|| words::translated(check.remedy)),
            })
        })
        .collect();
    format!("{}\n", json!({ "can_run_jobs": found.can_run_jobs(), "checks": checks }))
}

fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Present => "ok",
        Verdict::Missing => "missing",
        _ => "fatal",
    }
}

/// What was found, without the remedy that is said once for all.
fn found_of(check: &Check) -> String {
    let found = words::translated(&check.found);
    found.replace(
        ": run as root, or let the service manager delegate a cgroup (systemd: Delegate=yes)",
        "",
    )
}

/// A row for each check, and then each remedy once, with what it is for.
fn as_text(found: &Capabilities, without: bool) -> String {
    let columns = screen().map_or(COLUMNS, |columns| columns.clamp(20, COLUMNS));
    let bold = Style::new().bold();
    let mut text = String::new();
    for check in &found.checks {
        let missing = check.verdict != Verdict::Present;
        let style = match check.verdict {
            Verdict::Present => Style::new().green(),
            Verdict::Missing => Style::new().yellow(),
            _ => Style::new().red().bold(),
        };
        let head = format!("{:<8}{}: ", mark(check.verdict), check.name);
        let first = format!("{head}{}", found_of(check));
        let row = wrapped(&first, "", "        ", columns);
        // Coloured only now: the width is that of the text.
        let row =
            row.replacen(mark(check.verdict), &style.apply_to(mark(check.verdict)).to_string(), 1);
        text += &row.replacen(check.name, &bold.apply_to(check.name).to_string(), 1);
        if missing {
            let use_of_it = format!("needed for {}", words::translated(&check.good_for));
            text += &wrapped(&use_of_it, "        ", "        ", columns);
        }
    }
    let mut remedies: Vec<(String, Vec<&str>)> = Vec::new();
    for Check { name, remedy, .. } in
        found.checks.iter().filter(|check| check.verdict != Verdict::Present)
    {
        let remedy = words::translated(remedy);
        match remedies.iter_mut().find(|(other, _)| *other == remedy) {
            Some((_, names)) => names.push(name),
            None => remedies.push((remedy, vec![name])),
        }
    }
    if !remedies.is_empty() {
        text += &format!("\n{}\n", bold.apply_to("What to do about what is missing"));
    }
    for (remedy, names) in remedies {
        text += &wrapped(&format!("{}:", names.join(", ")), "- ", "  ", columns);
        text += &wrapped(&remedy, "  ", "  ", columns);
    }
    let sum = if found.can_run_jobs() {
        "This system can run jobs in cgroups."
    } else if without {
        "This system cannot run jobs in cgroups; without them (--no-cgroup) it can."
    } else {
        "This system cannot run jobs in cgroups: --no-cgroup does without them."
    };
    text + "\n" + &wrapped(sum, "", "", columns)
}

/// The width of the screen, if there is one.
fn screen() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (io::stdout().is_terminal() && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// A paragraph of lines that are no longer than this, unless a single word is.
fn wrapped(text: &str, first: &str, rest: &str, columns: usize) -> String {
    let options = textwrap::Options::new(columns)
        .initial_indent(first)
        .subsequent_indent(rest)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options) + "\n"
}
