//! The status screen: what a person sees who stands before the machine. It lies on the first virtual
//! terminal, where there is one; the console's lines go on elsewhere as ever.

use crate::log;
use contract::Slot;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use sys::terminal;

/// The first virtual terminal, which a screen shows by default.
const TERMINAL: &str = "/dev/tty1";
/// What the kernel writes on the same terminal is painted over after this long.
const REPAINT: Duration = Duration::from_secs(60);
/// What is to be shown is looked at no more often than this.
const LOOK: Duration = Duration::from_secs(1);

/// Everything that is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Name of the host.
    pub hostname: String,
    /// Release version.
    pub version: String,
    /// The slot that runs.
    pub slot: Option<Slot>,
    /// Whether it has yet to prove itself.
    pub on_trial: bool,
    /// `docker` or `containerd`.
    pub runtime: &'static str,
    /// Whether it answers.
    pub runtime_ready: bool,
    /// Link and address of each, or what is wrong with the link.
    pub addresses: Vec<String>,
    /// Name and state of each workload.
    pub workloads: Vec<(String, &'static str)>,
    /// Where an update stands.
    pub update: String,
    /// Why nothing can be kept, if so.
    pub problem: Option<String>,
    /// The latest lines of the console, oldest first.
    pub lines: Vec<String>,
}

/// What was painted, and when.
#[derive(Debug, Default)]
pub struct Screen {
    painted: Option<(String, Duration)>,
    looked: Duration,
    again: Option<Duration>,
}

impl Screen {
    /// When something may have changed that is not shown yet.
    pub fn deadline(&self) -> Option<Duration> {
        self.again
    }

    /// Something may have changed: paints what `view` makes, if it differs from what is there or if that
    /// is old. A machine without a screen is no reason to stop.
    pub fn update(&mut self, now: Duration, view: impl FnOnce() -> View) {
        let due = self.looked + LOOK;
        if self.painted.is_some() && now < due {
            self.again = Some(due);
            return;
        }
        (self.looked, self.again) = (now, None);
        let Ok(mut terminal) = terminal::open_for_output(Path::new(TERMINAL)) else { return };
        let (columns, rows) = terminal::size(&terminal).unwrap_or((80, 25));
        let text = render(&view(), columns.into(), rows.into());
        let fresh = self
            .painted
            .as_ref()
            .is_some_and(|(old, at)| *old == text && now.saturating_sub(*at) < REPAINT);
        if !fresh && terminal.write_all(text.as_bytes()).is_ok() {
            self.painted = Some((text, now));
            log::on_screen(true);
        }
    }
}

/// Gives the terminal back to the lines of the console, below what is painted.
pub fn leave() {
    if log::on_screen(false)
        && let Ok(mut terminal) = terminal::open_for_output(Path::new(TERMINAL))
    {
        // Cursor shown, last line.
        let _ = terminal.write_all(b"\x1b[?25h\x1b[999;1H\r\n");
    }
}

/// The screen as bytes for a terminal of that size: from the top left corner, each line cleared to its
/// end, no line longer than the terminal is wide, none below the last.
fn render(view: &View, columns: usize, rows: usize) -> String {
    let (columns, rows) = (columns.clamp(40, 400), rows.clamp(10, 200));
    let mut lines = vec![heading(view, columns), String::new()];
    lines.extend(facts(view));
    lines.push(String::new());
    let room = rows.saturating_sub(lines.len());
    let skip = view.lines.len().saturating_sub(room);
    lines.extend(view.lines[skip..].iter().cloned());
    lines.truncate(rows);
    let fit = |line: &String| -> String { printable(line).chars().take(columns).collect() };
    let text: Vec<String> = lines.iter().map(|line| fit(line) + "\x1b[K").collect();
    // Cursor hidden, top left, the first line inverse; what is below the last line is cleared.
    let text = text.join("\r\n").replacen("\x1b[K", "\x1b[m\x1b[K", 1);
    format!("\x1b[?25l\x1b[H\x1b[7m{text}\x1b[J")
}

fn heading(view: &View, columns: usize) -> String {
    let left = format!(" Berth  {}", view.hostname);
    let slot = match (view.slot, view.on_trial) {
        (None, _) => String::new(),
        (Some(slot), false) => format!("slot {slot}"),
        (Some(slot), true) => format!("slot {slot}, on trial"),
    };
    let right = format!("{}  {slot} ", view.version);
    let gap = columns.saturating_sub(left.chars().count() + right.chars().count());
    format!("{left}{}{right}", " ".repeat(gap.max(1)))
}

/// Some rows are for the console's lines whatever there is to tell.
const MOST_OF_A_KIND: usize = 6;

fn facts(view: &View) -> Vec<String> {
    let runtime = match view.runtime_ready {
        true => format!("{}, ready", view.runtime),
        false => format!("{}, not ready yet", view.runtime),
    };
    let mut lines = vec![row("runtime", &runtime)];
    lines.extend(view.problem.iter().map(|problem| row("problem", problem)));
    let addresses = match view.addresses.is_empty() {
        true => vec!["none yet".to_owned()],
        false => some_of(&view.addresses),
    };
    lines.extend(list("network", &addresses));
    let workloads: Vec<_> =
        view.workloads.iter().map(|(name, state)| format!("{name}: {state}")).collect();
    lines.extend(list("workloads", &some_of(&workloads)));
    if !view.update.is_empty() {
        lines.push(row("update", &view.update));
    }
    lines
}

fn some_of(all: &[String]) -> Vec<String> {
    match all.len() {
        n if n <= MOST_OF_A_KIND => all.to_vec(),
        n => {
            let more = format!("and {} more", n + 1 - MOST_OF_A_KIND);
            all[..MOST_OF_A_KIND - 1].iter().cloned().chain([more]).collect()
        }
    }
}

fn list(name: &str, values: &[String]) -> Vec<String> {
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    names.zip(values).map(|(name, value)| row(name, value)).collect()
}

fn row(name: &str, value: &str) -> String {
    format!(" {name:<11}{value}")
}

/// Names come from networks and files: no control character reaches the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            hostname: "db-7".to_owned(),
            version: "1.4.0".to_owned(),
            slot: Some(Slot::B),
            on_trial: true,
            runtime: "docker",
            runtime_ready: true,
            addresses: vec!["eth0  192.0.2.7/24".to_owned(), "eth0  2001:db8::7/64".to_owned()],
            workloads: vec![("shop".to_owned(), "up"), ("mail".to_owned(), "starting")],
            update: "trial 1.4.0".to_owned(),
            problem: None,
            lines: (0..100).map(|n| format!("line {n}")).collect(),
        }
    }

    fn seen(view: &View, columns: usize, rows: usize) -> Vec<String> {
        let text = render(view, columns, rows);
        let text = text.strip_prefix("\x1b[?25l\x1b[H\x1b[7m").expect("the frame");
        let text = text.strip_suffix("\x1b[J").expect("the frame").replacen("\x1b[m", "", 1);
        let lines = text.split("\r\n");
        lines.map(|line| line.strip_suffix("\x1b[K").expect("cleared").to_owned()).collect()
    }

    #[test]
    fn the_screen_of_an_ordinary_terminal() {
        let lines = seen(&view(), 80, 25);
        let heading =
            " Berth  db-7                                            1.4.0  slot b, on trial ";
        assert_eq!(lines[0], heading);
        assert_eq!(
            lines[1..9],
            [
                "",
                " runtime    docker, ready",
                " network    eth0  192.0.2.7/24",
                "            eth0  2001:db8::7/64",
                " workloads  shop: up",
                "            mail: starting",
                " update     trial 1.4.0",
                "",
            ]
        );
        assert_eq!((lines.len(), lines[24].as_str()), (25, "line 99"));
    }

    #[test]
    fn nothing_leaves_the_terminal_whatever_there_is_to_show() {
        let mut view = view();
        view.hostname = "x".repeat(300);
        view.addresses = (0..50).map(|n| format!("eth{n}  \x1b[2J{}", "é".repeat(90))).collect();
        for (columns, rows) in [(80, 25), (40, 10), (132, 50), (0, 0), (1000, 1000)] {
            let lines = seen(&view, columns, rows);
            assert!(lines.len() <= rows.clamp(10, 200), "{columns} {rows}");
            let widest = lines.iter().map(String::len).max().expect("a line");
            assert!(widest <= columns.clamp(40, 400), "{columns} {rows}: {widest}");
            assert!(lines.iter().all(|line| !line.contains('\x1b')));
        }
        assert!(seen(&view, 80, 25).iter().any(|line| line.contains("and 45 more")));
    }
}
