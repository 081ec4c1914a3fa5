//! What a host is told about updates: `[update]` of the host configuration.

use crate::release::is_channel_name;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where `init` puts the `[update]` that counts, as the JSON of [`Update`].
pub const CONFIG: &str = "/run/berth/update.json";

/// `[update]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RawUpdate {
    /// Address of the repository, or of several with the same content.
    pub repository: Option<OneOrMore>,
    /// Channel to follow.
    pub channel: Option<String>,
    /// File on the ESP with the TUF root to trust instead of the image's, relative to the folder
    /// `berth`.
    pub root: Option<String>,
    /// `immediate`, `window` or `manual`.
    pub reboot: Option<String>,
    /// `[[update.window]]`
    pub window: Option<Vec<RawWindow>>,
    /// Seconds between two looks at the repository.
    pub interval: Option<u64>,
    /// Starts that a new system has to become healthy.
    pub tries: Option<u8>,
    /// Seconds that each of these starts has.
    pub deadline: Option<u64>,
    /// Seconds for which it has to stay healthy.
    pub soak: Option<u64>,
    /// Most bytes a second to download.
    pub bandwidth: Option<u64>,
    /// HTTP proxy.
    pub proxy: Option<String>,
    /// `allowed`, `never` or `always`: downloads of everything instead of what has changed.
    pub full: Option<String>,
    /// Days between two checks of the slot that does not run; 0 for none.
    pub scrub: Option<u64>,
    /// Hardware class of this machine.
    pub hardware: Option<String>,
}

/// A value or a list of them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// A list.
    More(Vec<String>),
}

/// `[[update.window]]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RawWindow {
    /// `Mon`, `Tue` and so on. None: every day.
    pub days: Option<Vec<String>>,
    /// `HH:MM`.
    pub from: String,
    /// `HH:MM`. Earlier than `from`: on the next day.
    pub to: String,
    /// Time zone by its IANA name.
    pub time_zone: Option<String>,
}

/// What a host is told about updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Addresses of the repository, without a slash at the end. None: the host does not update by
    /// itself.
    pub repository: Vec<String>,
    /// Channel to follow.
    pub channel: String,
    /// File on the ESP with the TUF root to trust instead of the image's.
    pub root: Option<String>,
    /// When to restart into an installed release.
    pub reboot: Reboot,
    /// Time between two looks at the repository.
    pub interval: Duration,
    /// What a new system has to show.
    pub trial: Trial,
    /// Most bytes a second to download.
    pub bandwidth: Option<u64>,
    /// HTTP proxy.
    pub proxy: Option<String>,
    /// What is reached without it.
    #[serde(default)]
    pub no_proxy: Vec<String>,
    /// Whether everything may be downloaded.
    pub full: Full,
    /// Time between two checks of the slot that does not run.
    pub scrub: Option<Duration>,
    /// Hardware class of this machine.
    pub hardware: Option<String>,
}

/// What a new system has to show before it counts as healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Starts that it has.
    pub tries: u8,
    /// Time that each of them has; `None`: what its workloads may take.
    pub deadline: Option<Duration>,
    /// Time for which everything has to run on.
    pub soak: Duration,
}

/// When to restart into an installed release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reboot {
    /// At once.
    Immediate,
    /// Within one of these.
    Window(Vec<Window>),
    /// When a person says so.
    Manual,
}

/// A time of the week.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// On which days it begins, Monday first.
    pub days: [bool; 7],
    /// Minutes after midnight.
    pub from: u16,
    /// Minutes after midnight; not later than `from`: on the next day.
    pub to: u16,
    /// IANA name.
    pub time_zone: String,
}

/// Whether everything may be downloaded where no patch fits, or has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Full {
    /// What the running system has is used; the rest is downloaded, however much it is.
    Allowed,
    /// Only a patch is downloaded. Without one that fits there is no update.
    Never,
    /// Nothing of the running system is used.
    Always,
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl Default for Update {
    fn default() -> Update {
        Update {
            repository: Vec::new(),
            channel: "stable".to_owned(),
            root: None,
            reboot: Reboot::Immediate,
            interval: Duration::from_secs(3600),
            trial: Trial { tries: 3, deadline: None, soak: Duration::from_secs(30) },
            bandwidth: None,
            proxy: None,
            no_proxy: Vec::new(),
            full: Full::Allowed,
            scrub: Some(Duration::from_secs(7 * 24 * 3600)),
            hardware: None,
        }
    }
}

impl RawUpdate {
    /// This layer over `below`: its keys win.
    pub fn over(self, below: RawUpdate) -> RawUpdate {
        RawUpdate {
            repository: self.repository.or(below.repository),
            channel: self.channel.or(below.channel),
            root: self.root.or(below.root),
            reboot: self.reboot.or(below.reboot),
            window: self.window.or(below.window),
            interval: self.interval.or(below.interval),
            tries: self.tries.or(below.tries),
            deadline: self.deadline.or(below.deadline),
            soak: self.soak.or(below.soak),
            bandwidth: self.bandwidth.or(below.bandwidth),
            proxy: self.proxy.or(below.proxy),
            full: self.full.or(below.full),
            scrub: self.scrub.or(below.scrub),
            hardware: self.hardware.or(below.hardware),
        }
    }

    /// Checks everything. The error is the key that is wrong, and why.
    pub fn validate(self) -> Result<Update, (String, String)> {
        let defaults = Update::default();
        let repository = match self.repository {
            None => Vec::new(),
            Some(OneOrMore::One(one)) => vec![one],
            Some(OneOrMore::More(more)) => more,
        };
        let channel = self.channel.unwrap_or(defaults.channel);
        if !is_channel_name(&channel) {
            let why = format!("`{channel}` is not lower-case letters, digits and hyphens");
            return Err(wrong("channel", why));
        }
        if let Some(root) = &self.root
            && root.split('/').any(|part| part.is_empty() || part == "..")
        {
            return Err(wrong("root", format!("`{root}` leaves the ESP")));
        }
        let windows = self.window.unwrap_or_default().into_iter().enumerate();
        let windows = windows.map(|(i, raw)| window(i, raw)).collect::<Result<Vec<_>, _>>()?;
        let reboot = match (self.reboot.as_deref(), windows.is_empty()) {
            (Some("immediate"), true) | (None, true) => Reboot::Immediate,
            (Some("manual"), true) => Reboot::Manual,
            (Some("window") | None, false) => Reboot::Window(windows),
            (Some("window"), true) => {
                return Err(wrong("reboot", "is `window`, and there is no [[update.window]]"));
            }
            (Some(other @ ("immediate" | "manual")), false) => {
                let why = format!("is `{other}`: no [[update.window]] counts then");
                return Err(wrong("reboot", why));
            }
            (Some(other), _) => {
                let why = format!("`{other}` is none of `immediate`, `window`, `manual`");
                return Err(wrong("reboot", why));
            }
        };
        let full = match self.full.as_deref() {
            None => defaults.full,
            Some("allowed") => Full::Allowed,
            Some("never") => Full::Never,
            Some("always") => Full::Always,
            Some(other) => {
                let why = format!("`{other}` is none of `allowed`, `never`, `always`");
                return Err(wrong("full", why));
            }
        };
        const DAY: u64 = 24 * 3600;
        let seconds = Duration::from_secs;
        let tries = within("tries", self.tries.map(u64::from), 1, 10)?;
        let interval = within("interval", self.interval, 5, 30 * DAY)?.map(seconds);
        let soak = within("soak", self.soak, 0, DAY)?.map(seconds);
        let scrub = within("scrub", self.scrub, 0, 365)?.map(|days| seconds(days * DAY));
        Ok(Update {
            repository: repository.into_iter().map(address).collect::<Result<_, _>>()?,
            channel,
            root: self.root,
            reboot,
            interval: interval.unwrap_or(defaults.interval),
            trial: Trial {
                tries: tries.map_or(defaults.trial.tries, |tries| tries as u8),
                deadline: within("deadline", self.deadline, 30, DAY)?.map(seconds),
                soak: soak.unwrap_or(defaults.trial.soak),
            },
            bandwidth: within("bandwidth", self.bandwidth, 1024, u64::MAX)?,
            proxy: self.proxy.map(|proxy| checked("proxy", proxy)).transpose()?,
            no_proxy: Vec::new(),
            full,
            scrub: scrub.or(defaults.scrub).filter(|every| !every.is_zero()),
            hardware: self.hardware,
        })
    }
}

/// What is wrong with a key of `[update]`.
fn wrong(key: &str, why: impl Into<String>) -> (String, String) {
    (format!("update.{key}"), why.into())
}

fn within(
    key: &str,
    value: Option<u64>,
    least: u64,
    most: u64,
) -> Result<Option<u64>, (String, String)> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(wrong(key, format!("{value} is not in {least}..{most}")))
        }
        value => Ok(value),
    }
}

fn address(text: String) -> Result<String, (String, String)> {
    let text = checked("repository", text)?;
    Ok(text.trim_end_matches('/').to_owned())
}

fn checked(key: &str, text: String) -> Result<String, (String, String)> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    let good = host.is_some_and(|host| !host.is_empty())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "?#".contains(c));
    match good {
        true => Ok(text),
        false => {
            let why = format!("`{text}` is not an address as in https://updates.example.org");
            Err(wrong(key, why))
        }
    }
}

fn window(number: usize, raw: RawWindow) -> Result<Window, (String, String)> {
    let minutes = |text: &str| {
        let (hours, minutes) = text.split_once(':')?;
        let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        let (h, m): (u16, u16) = match digits(hours) && digits(minutes) {
            true => (hours.parse().ok()?, minutes.parse().ok()?),
            false => return None,
        };
        (h < 24 && m < 60).then_some(h * 60 + m)
    };
    let key = |key: &str| format!("window.{number}.{key}");
    let time = |name: &str, text: &str| {
        let why = || format!("`{text}` is not a time as in 02:30");
        minutes(text).ok_or_else(|| wrong(&key(name), why()))
    };
    let mut days = [raw.days.is_none(); 7];
    for day in raw.days.iter().flatten() {
        let Some(number) = DAYS.iter().position(|known| known == day) else {
            let why = format!("`{day}` is none of {}", DAYS.join(", "));
            return Err(wrong(&key("days"), why));
        };
        days[number] = true;
    }
    let time_zone = raw.time_zone.unwrap_or_else(|| "UTC".to_owned());
    Ok(Window { days, from: time("from", &raw.from)?, to: time("to", &raw.to)?, time_zone })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml_input;

    fn update(text: &str) -> Result<Update, String> {
        let raw: RawUpdate = toml_input::parse("x", text).map_err(|e| e.message)?;
        raw.validate().map_err(|(key, why)| format!("{key}: {why}"))
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(update(""), Ok(Update::default()));
    }

    #[test]
    fn everything_can_be_said() {
        let said = update(
            "repository = [\"https://a.example/r/\", \"http://[2001:db8::1]:8080\"]\n\
             channel = \"beta\"\nroot = \"keys/root.json\"\ninterval = 60\ntries = 2\n\
             deadline = 120\nsoak = 0\nbandwidth = 1000000\nproxy = \"http://proxy:3128\"\n\
             full = \"never\"\nscrub = 0\nhardware = \"rack\"\n\
             [[window]]\ndays = [\"Sat\", \"Sun\"]\nfrom = \"22:00\"\nto = \"04:30\"\n\
             time-zone = \"Europe/Berlin\"",
        );
        let said = said.expect("valid");
        assert_eq!(said.repository, ["https://a.example/r", "http://[2001:db8::1]:8080"]);
        let Reboot::Window(windows) = &said.reboot else { panic!("{:?}", said.reboot) };
        assert_eq!(windows[0].days, [false, false, false, false, false, true, true]);
        assert_eq!((windows[0].from, windows[0].to), (1320, 270));
        assert_eq!((said.scrub, said.full, said.trial.tries), (None, Full::Never, 2));
        let json = serde_json::to_vec(&said).expect("JSON");
        assert_eq!(serde_json::from_slice::<Update>(&json).expect("JSON"), said);
    }

    #[test]
    fn bad_values_are_named() {
        let cases = [
            ("repository = \"updates.example\"", "update.repository: `updates.example` is not"),
            ("repository = \"https:///x\"", "update.repository: `https:///x` is not"),
            ("channel = \"a/b\"", "update.channel: `a/b`"),
            ("root = \"../x\"", "update.root: `../x` leaves the ESP"),
            ("reboot = \"later\"", "update.reboot: `later` is none of"),
            ("reboot = \"window\"", "there is no [[update.window]]"),
            ("reboot = \"manual\"\n[[window]]\nfrom=\"01:00\"\nto=\"02:00\"", "no [[update.window"),
            ("[[window]]\nfrom=\"24:00\"\nto=\"02:00\"", "update.window.0.from: `24:00`"),
            ("[[window]]\nfrom=\"1:00\"\nto=\"02:00\"", "update.window.0.from: `1:00`"),
            ("[[window]]\nfrom=\"01:00\"\nto=\"02:00\"\ndays=[\"Monday\"]", "`Monday` is none of"),
            ("tries = 0", "update.tries: 0 is not in 1..10"),
            ("interval = 1", "update.interval: 1 is not in"),
            ("full = \"yes\"", "update.full: `yes`"),
        ];
        for (text, expected) in cases {
            let error = update(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
