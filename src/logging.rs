//! The log of the program on stderr, in Envoy's shape:
//! `[2026-11-23 10:00:00.123][812][info][main] serving generation=4`.
//!
//! The component in the last brackets is the module the line comes from, by the names in
//! [`COMPONENTS`]. Levels can be changed while the program runs, for all components or for one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use baton_worker::LogControl;
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Registry,
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

/// Modules by the component they belong to; the first prefix that fits decides.
const COMPONENTS: &[(&str, &str)] = &[
    ("baton_worker::cluster", "upstream"),
    ("baton_worker::upstream", "upstream"),
    ("baton_worker::config", "config"),
    ("baton_worker::http", "http"),
    ("baton_worker::filter", "filter"),
    ("baton_worker::route", "router"),
    ("baton_worker::listener", "connection"),
    ("baton_worker::admin", "admin"),
    ("baton_worker::handoff", "handoff"),
    ("baton_worker::access_log", "access_log"),
    ("baton_worker", "main"),
    ("baton_supervisor", "main"),
    ("baton", "main"),
];

/// The running log.
#[derive(Debug)]
struct Log {
    levels: Mutex<Levels>,
    filter: reload::Handle<Targets, Registry>,
}

#[derive(Clone, Debug)]
struct Levels {
    default: LevelFilter,
    components: BTreeMap<String, LevelFilter>,
}

/// Starts the log. `components` is Envoy's `--component-log-level`, `http:debug,upstream:trace`.
///
/// # Errors
/// A sentence when a level or a component does not exist.
pub(crate) fn start(level: &str, components: &str) -> Result<Arc<dyn LogControl>, String> {
    let mut levels = Levels { default: parse_level(level)?, components: BTreeMap::new() };
    for entry in components.split(',').filter(|entry| !entry.is_empty()) {
        let (component, level) = entry
            .split_once(':')
            .ok_or_else(|| format!("`{entry}` is not COMPONENT:LEVEL, as in `http:debug`"))?;
        levels.components.insert(known_component(component)?, parse_level(level)?);
    }
    let (filter, handle) = reload::Layer::new(levels.targets());
    let lines = tracing_subscriber::fmt::layer().event_format(Line).with_writer(std::io::stderr);
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

impl Levels {
    fn targets(&self) -> Targets {
        // Libraries speak up only when something is wrong with them.
        let libraries = self.default.min(LevelFilter::WARN);
        let ours = COMPONENTS.iter().map(|(module, component)| {
            (*module, self.components.get(*component).copied().unwrap_or(self.default))
        });
        Targets::new().with_default(libraries).with_targets(ours)
    }
}

fn component_names() -> Vec<&'static str> {
    let mut names: Vec<_> = COMPONENTS.iter().map(|(_, component)| *component).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn known_component(name: &str) -> Result<String, String> {
    let names = component_names();
    if names.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("there is no log component `{name}`; there are {}", names.join(", ")))
}

/// Envoy's names; `critical` is `error` here.
fn parse_level(name: &str) -> Result<LevelFilter, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warning" | "warn" => LevelFilter::WARN,
        "error" | "critical" => LevelFilter::ERROR,
        "off" => LevelFilter::OFF,
        _ => {
            return Err(format!(
                "`{name}` is not a log level; there are trace, debug, info, warning, error, \
                 critical and off"
            ));
        }
    })
}

fn level_name(level: LevelFilter) -> &'static str {
    level.into_level().map_or("off", event_level)
}

fn event_level(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warning",
        Level::ERROR => "error",
    }
}

/// How a line looks.
struct Line;

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
        write_time(&mut writer, now())?;
        let level = event_level(*metadata.level());
        write!(writer, "[{}][{level}][{component}] ", std::process::id())?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writer.write_char('\n')
    }
}

#[expect(clippy::disallowed_methods, reason = "a log line carries the time of day")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// `[2026-11-23 10:00:00.123]`, UTC.
fn write_time(out: &mut dyn fmt::Write, time: SystemTime) -> fmt::Result {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    write!(out, "[{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}]")
}

/// Year, month and day of a day since 1970-01-01. Years are counted from March, so that the leap
/// day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_envoy_does() {
        let check = |seconds: u64, expected: &str| {
            let mut text = String::new();
            write_time(&mut text, UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7)).unwrap();
            assert_eq!(text, expected);
        };
        check(0, "[1970-01-01 00:00:00.007]");
        check(951_782_400, "[2000-02-29 00:00:00.007]");
        check(1_795_428_000, "[2026-11-23 10:00:00.007]");
        check(4_107_542_399, "[2100-02-28 23:59:59.007]");
        check(4_107_542_400, "[2100-03-01 00:00:00.007]");
    }

    #[test]
    fn a_component_level_overrides_the_default_until_all_are_set() {
        let log = start("info", "http:trace").unwrap();
        let level = |name: &str| {
            log.levels().into_iter().find(|(component, _)| component == name).unwrap().1
        };
        assert_eq!((level("http"), level("main")), ("trace".to_owned(), "info".to_owned()));
        log.set(None, "warn").unwrap();
        assert_eq!((level("http"), level("main")), ("warning".to_owned(), "warning".to_owned()));
        assert!(log.set(Some("htp"), "info").unwrap_err().contains("http"));
        assert!(start("loud", "").is_err());
        assert!(start("info", "http=debug").is_err());
    }
}
