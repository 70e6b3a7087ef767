//! Owns [`Screen`]: a picture at the bottom of a terminal that is drawn over and over.
//!
//! Invariant: no line of it is wider than the terminal, nor is it higher, so that the next picture
//! covers it exactly, whatever the size was meanwhile. Knows nothing of how the figures are found
//! out, nor of how bytes get to the terminal.

use std::collections::VecDeque;
use std::env;
use std::fmt::Write;
use std::io;

use console::{Style, measure_text_width, pad_str, truncate_str};

use crate::common::Stdout;
use crate::common::keyboard;
use crate::figures::{Figures, RESOURCES, Row};

/// How many figures of the past are kept, which is more than any terminal is wide.
const PAST: usize = 500;

/// From nothing to everything.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same where the locale is not one of UTF-8.
const ASCII: [char; 8] = ['_', '.', '-', ':', '=', '+', '*', '#'];

/// What stands for the rest of a line, there too.
const REST: &str = "~";

/// What is shown beside the figures.
pub(crate) struct Picture<'a> {
    /// The command line.
    pub(crate) command: &'a str,
    /// What the job does, and for how long.
    pub(crate) state: String,
    pub(crate) limits: &'a str,
    pub(crate) figures: &'a Figures,
    /// The last lines of the job's output.
    pub(crate) output: &'a [String],
    /// What keys do.
    pub(crate) keys: &'a str,
}

/// The past of a resource, newest last.
#[derive(Default)]
struct Past {
    /// Percentages of the time.
    stalled: VecDeque<f64>,
    used: VecDeque<f64>,
}

pub(crate) struct Screen {
    past: [Past; 3],
    levels: [char; 8],
    /// The picture that is on the terminal.
    drawn: Vec<String>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let past = std::array::from_fn(|_| Past::default());
        let levels = if takes_utf8() { BLOCKS } else { ASCII };
        Self { past, levels, drawn: Vec::new() }
    }

    /// Draws a picture over the one before.
    pub(crate) fn show(&mut self, picture: &Picture<'_>, stdout: &mut Stdout) {
        for (past, row) in self.past.iter_mut().zip(&picture.figures.rows) {
            push(&mut past.stalled, row.some.as_ref().map(|stalls| f64::from(stalls.now)));
            push(&mut past.used, row.used.as_ref().map(|used| used.amount));
        }
        let (rows, columns) = size();
        let mut lines = self.lines(picture, columns);
        lines.truncate(rows);
        let text = self.begin(columns);
        self.put(text, lines, stdout);
    }

    /// Prints a line above the picture, where it stays.
    pub(crate) fn print_line(&mut self, line: &str, stdout: &mut Stdout) {
        let (_, columns) = size();
        let text = format!("{}{line}\x1b[K\r\n", self.begin(columns));
        let lines = std::mem::take(&mut self.drawn);
        let fitting = lines.iter().map(|line| fit(line, columns)).collect();
        self.put(text, fitting, stdout);
    }

    /// Leaves the picture where it is; what is printed next begins below.
    pub(crate) fn leave(&mut self, stdout: &mut Stdout) {
        if !std::mem::take(&mut self.drawn).is_empty() {
            stdout.print(b"\r\n");
        }
    }

    /// What brings the cursor to the beginning of the picture. The terminal may have become
    /// narrower, and has then put what does not fit into rows of its own.
    fn begin(&self, columns: usize) -> String {
        let rows = |line: &String| measure_text_width(line).div_ceil(columns.max(1)).max(1);
        match self.drawn.iter().map(rows).sum::<usize>() {
            0 | 1 => "\r".to_owned(),
            rows => format!("\r\x1b[{}A", rows - 1),
        }
    }

    fn put(&mut self, mut text: String, lines: Vec<String>, stdout: &mut Stdout) {
        // Each line is cleared behind its end, and at last the rest of the terminal.
        text += &lines.join("\x1b[K\r\n");
        text += "\x1b[J";
        stdout.print(text.as_bytes());
        self.drawn = lines;
    }

    fn lines(&self, picture: &Picture<'_>, columns: usize) -> Vec<String> {
        let (bold, dim) = (Style::new().bold(), Style::new().dim());
        let room = columns.saturating_sub(measure_text_width(&picture.state) + 3);
        let command = truncate_str(picture.command, room.saturating_sub(2), REST);
        let head =
            pad_str(&format!("$ {command}"), room, console::Alignment::Left, None).into_owned();
        let mut lines = vec![
            format!("{}  {}", bold.apply_to(head), picture.state),
            dim.apply_to(picture.limits).to_string(),
        ];
        let layout = Layout::new(columns.saturating_sub(1));
        lines.push(dim.apply_to(layout.head()).to_string());
        for ((resource, row), past) in RESOURCES.iter().zip(&picture.figures.rows).zip(&self.past) {
            lines.push(layout.row(&resource.to_string(), row, past, self.levels));
        }
        let mut rest: Vec<String> = picture.figures.remarks.clone();
        if let Some(processes) = &picture.figures.processes {
            rest.insert(0, format!("processes {processes}"));
        }
        if !rest.is_empty() {
            lines.push(rest.join("  "));
        }
        for (index, line) in picture.output.iter().enumerate() {
            let name = if index == 0 { "output" } else { "" };
            lines.push(format!("{} {line}", dim.apply_to(format!("{name:<6}"))));
        }
        if !picture.keys.is_empty() {
            lines.push(dim.apply_to(picture.keys).to_string());
        }
        lines.iter().map(|line| fit(line, columns)).collect()
    }
}

/// How the columns of the table share the width.
struct Layout {
    full: bool,
    /// How wide the pictures of the past are, of stalls and of use.
    stalled: usize,
    used: usize,
    /// How wide the words for what is used are.
    words: usize,
}

impl Layout {
    fn new(width: usize) -> Self {
        let full = width >= 60;
        let left = width.saturating_sub(if full { 25 } else { 16 });
        let words = if full { (left / 2).min(36) } else { 11 };
        let pictures = left.saturating_sub(words + 2);
        // Two of them where each says something.
        if pictures >= 60 {
            let each = (pictures / 2 - 1).min(60);
            Self { full, stalled: each, used: each, words }
        } else {
            Self { full, stalled: pictures, used: 0, words }
        }
    }

    fn head(&self) -> String {
        let mut text = format!("{:<6} {:>8}", "", "some");
        if self.full {
            let _ = write!(text, " {:>8}", "full");
        }
        let title = fit("stalled", self.stalled + 1);
        let title = pad_str(&title, self.stalled, console::Alignment::Left, None);
        let _ = write!(text, " {title}  used");
        text
    }

    fn row(&self, name: &str, row: &Row, past: &Past, levels: [char; 8]) -> String {
        let percent = |stalls: &Option<crate::figures::Stalls>| {
            let text =
                stalls.as_ref().map_or("-".to_owned(), |stalls| format!("{:.2} %", stalls.percent));
            format!(" {text:>8}")
        };
        let mut text = format!("{name:<6}") + &percent(&row.some);
        if self.full {
            text += &percent(&row.full);
        }
        text = text + " " + &sparks(&past.stalled, self.stalled, 100.0, levels, stalled_style);
        let words = match &row.used {
            None => "-".to_owned(),
            Some(used) => used.more.iter().fold(used.short.clone(), |text, more| {
                let longer = text.clone() + more;
                if measure_text_width(&longer) <= self.words { longer } else { text }
            }),
        };
        if self.used == 0 {
            return text + "  " + &words;
        }
        let words = pad_str(&words, self.words, console::Alignment::Left, None);
        let most = past.used.iter().copied().fold(0.0, f64::max);
        let used = sparks(&past.used, self.used, most, levels, |_| Style::new().cyan());
        format!("{text}  {words} {used}")
    }
}

fn stalled_style(share: f64) -> Style {
    match share {
        ..0.1 => Style::new().green(),
        ..0.5 => Style::new().yellow(),
        _ => Style::new().red(),
    }
}

/// The newest values, each as high as its share of `most` is, and padded on the left.
fn sparks(
    values: &VecDeque<f64>,
    width: usize,
    most: f64,
    levels: [char; 8],
    style: impl Fn(f64) -> Style,
) -> String {
    let mut text = " ".repeat(width.saturating_sub(values.len()));
    for value in values.iter().skip(values.len().saturating_sub(width)) {
        let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
        // The lowest one is for nothing alone.
        let level = levels[(share * 7.0).ceil() as usize];
        let _ = write!(text, "{}", style(share).apply_to(level));
    }
    text
}

/// A line that leaves the last column free, in which a terminal would get ready for the next line.
fn fit(line: &str, columns: usize) -> String {
    truncate_str(line, columns.saturating_sub(1), REST).into_owned()
}

fn push(past: &mut VecDeque<f64>, value: Option<f64>) {
    let Some(value) = value else { return };
    if past.len() == PAST {
        past.pop_front();
    }
    past.push_back(value);
}

fn size() -> (usize, usize) {
    let (rows, columns) = keyboard::size(io::stdout());
    (usize::from(rows), usize::from(columns))
}

/// Whether the locale is one of UTF-8.
fn takes_utf8() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(env::var_os);
    let locale =
        set.map(|value| value.to_string_lossy().to_lowercase()).find(|value| !value.is_empty());
    locale.is_some_and(|value| value.contains("utf-8") || value.contains("utf8"))
}
