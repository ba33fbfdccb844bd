//! The log of the program on stderr, in Envoy's shape:
//! `[2026-11-23 10:00:00.123][812][info][main] serving generation=4`, or as `--log-format` wants it.
//!
//! The component in the last brackets is the module the line comes from, by the names in
//! [`COMPONENTS`]. Levels can be changed while the program runs, for all components or for one.
//!
//! When stderr is the journal, a line begins with its priority as in `sd-daemon(3)`, `<4>`, and leaves
//! the time to the journal.

mod file;
mod levels;
mod pattern;
mod stream;
mod time;

use std::{
    fmt::{self, Write as _},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use baton_contract::place;
use baton_worker::LogControl;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    Registry,
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

pub(crate) use self::file::{leave, reopen, terminal};
use self::{
    levels::{
        COMPONENTS, Levels, component_names, event_level, known_component, level_name, parse_level,
    },
    pattern::{Pattern, Values, escape},
    time::Civil,
};
use crate::cli::LogArgs;

/// The running log.
#[derive(Debug)]
struct Log {
    levels: Mutex<Levels>,
    filter: reload::Handle<Targets, Registry>,
}

/// What a start would say of these settings. Nothing is opened and no file is made.
///
/// # Errors
/// A sentence when a level or a component does not exist, or the file cannot be written.
pub(crate) fn check(level: &str, components: &str, output: &LogArgs) -> Result<Checked, String> {
    let levels = Levels::parse(level, components)?;
    let problem = output.path().and_then(|path| Some((path, place::why_not_written(path)?)));
    match problem {
        Some((path, why)) => Err(unusable(path, &why)),
        None => Ok(Checked { for_worker: levels.for_worker(), of_envoy: levels.of_envoy }),
    }
}

/// Settings of the log that can be used.
#[derive(Debug)]
pub(crate) struct Checked {
    /// All levels in one text, for workers.
    pub for_worker: String,
    /// Components that only Envoy has, whose level was given.
    pub of_envoy: Vec<String>,
}

fn unusable(path: &Path, why: &dyn fmt::Display) -> String {
    format!(
        "cannot write the log `{}`: {why}\nhint: make the directory, or name another file with \
         `--log-path`",
        path.display()
    )
}

/// Starts the log. `components` is Envoy's `--component-log-level`, `http:debug,upstream:trace`.
///
/// # Errors
/// A sentence when a level or a component does not exist, or the file cannot be opened.
pub(crate) fn start(
    level: &str,
    components: &str,
    output: &LogArgs,
) -> Result<Arc<dyn LogControl>, String> {
    let levels = Levels::parse(level, components)?;
    let (filter, handle) = reload::Layer::new(levels.targets());
    if let Some(path) = output.path() {
        file::redirect(path).map_err(|error| unusable(path, &error))?;
    }
    let line = Line {
        journal: in_journal(),
        pattern: output.log_format.as_deref().map(Pattern::parse),
        escaped: output.log_format_escaped,
    };
    let lines = tracing_subscriber::fmt::layer().event_format(line).with_writer(stream::Stream);
    // Only a test that starts two logs in one process can fail here, and one log is enough.
    drop(tracing_subscriber::registry().with(filter).with(lines).try_init());
    Ok(Arc::new(Log { levels: Mutex::new(levels), filter: handle }))
}

impl LogControl for Log {
    fn set(&self, component: Option<&str>, level: &str) -> Result<(), String> {
        let level = parse_level(level)?;
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(component) = component {
            levels.components.insert(known_component(component)?, level);
        } else {
            levels.default = level;
            levels.components.clear();
        }
        self.filter.reload(levels.targets()).map_err(|error| error.to_string())
    }

    fn reopen(&self) {
        reopen();
    }

    fn lost(&self) -> u64 {
        stream::lost()
    }

    fn levels(&self) -> Vec<(String, String)> {
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        component_names()
            .into_iter()
            .map(|name| {
                let level = levels.components.get(name).copied().unwrap_or(levels.default);
                (name.to_owned(), level_name(level).to_owned())
            })
            .collect()
    }
}

/// How a line looks.
struct Line {
    /// It goes to the journal, which has a time and wants a priority.
    journal: bool,
    /// `None` = as Envoy's default, with the process in place of the thread and no source file.
    pattern: Option<Pattern>,
    escaped: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let target = metadata.target();
        let component = COMPONENTS
            .iter()
            .find(|(module, _)| target.starts_with(module))
            .map_or("main", |(_, component)| *component);
        let (time, level) = (Civil::at(now()), event_level(*metadata.level()));
        let mut message = String::new();
        context.field_format().format_fields(Writer::new(&mut message), event)?;
        let mut line = String::new();
        if let Some(pattern) = &self.pattern {
            let file = metadata.file().unwrap_or_default();
            let number = metadata.line().unwrap_or_default();
            let message = &message;
            pattern.write(
                &mut line,
                &Values { time, level, component, file, line: number, message },
            )?;
        } else {
            if !self.journal {
                write!(line, "[{time}]")?;
            }
            write!(line, "[{}][{level}][{component}] {message}", std::process::id())?;
        }
        let line = if self.escaped { escape(&line) } else { line };
        if self.journal {
            return write_for_journal(&mut writer, priority(*metadata.level()), &line);
        }
        writeln!(writer, "{line}")
    }
}

/// Whether stderr is the stream that the service manager connected to the journal, and not
/// something else that somebody put there since. See `JOURNAL_STREAM` in `systemd.exec(5)`.
pub(crate) fn in_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// The priority of an error, as in `syslog(3)`.
pub(crate) const PRIORITY_ERROR: u8 = 3;

/// As in `syslog(3)`.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => PRIORITY_ERROR,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Each line is an entry of its own there, so each has the priority (`sd-daemon(3)`).
pub(crate) fn write_for_journal(out: &mut dyn fmt::Write, priority: u8, text: &str) -> fmt::Result {
    text.lines().try_for_each(|line| writeln!(out, "<{priority}>{line}"))
}

#[expect(clippy::disallowed_methods, reason = "a log line carries the time of day")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_gets_a_priority_for_each_line() {
        let mut text = String::new();
        write_for_journal(&mut text, priority(Level::WARN), "one\n  two").unwrap();
        assert_eq!(text, "<4>one\n<4>  two\n");
        let priorities = [Level::ERROR, Level::INFO, Level::DEBUG].map(priority);
        assert_eq!(priorities, [3, 6, 7]);
    }

    #[test]
    fn every_component_is_in_the_manual() {
        let manual = include_str!("../docs/OPERATIONS.md");
        for name in component_names() {
            assert!(manual.contains(&format!("| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn a_component_level_overrides_the_default_until_all_are_set() {
        let output = LogArgs::default();
        let log = start("info", "http:trace", &output).unwrap();
        let level = |name: &str| {
            log.levels().into_iter().find(|(component, _)| component == name).unwrap().1
        };
        assert_eq!((level("http"), level("main")), ("trace".to_owned(), "info".to_owned()));
        log.set(None, "warn").unwrap();
        assert_eq!((level("http"), level("main")), ("warning".to_owned(), "warning".to_owned()));
        assert!(log.set(Some("htp"), "info").unwrap_err().contains("http"));
        assert!(start("loud", "", &output).is_err());
        assert!(start("info", "http=debug", &output).is_err());
    }

    #[test]
    fn levels_are_those_of_envoy_and_nothing_else() {
        let output = LogArgs::default();
        for (level, components) in [
            ("info", ""),
            ("warn", "http:off"),
            ("critical", "misc:error"),
            ("off", "jwt:debug,http:trace"),
        ] {
            check(level, components, &output).unwrap();
        }
        for components in [
            "junk",
            "http",
            "http:",
            "http:junk",
            "junk:debug",
            "http:debug,",
            ",http:debug",
            "http:debug:trace",
            "http:debug, main:info",
            "http:INFO",
            ":info",
            "misc:junk",
        ] {
            assert!(check("info", components, &output).is_err(), "{components}");
        }
        for level in ["junk", "INFO", "", "5"] {
            assert!(check(level, "", &output).is_err(), "{level}");
        }
        let checked = check("warn", "misc:error,http:trace", &output).unwrap();
        assert_eq!(checked.for_worker, "warning,http:trace");
        assert_eq!(checked.of_envoy, ["misc"]);
    }
}
