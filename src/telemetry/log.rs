//! The process's log: levels, form and destination, changeable while it runs.
//!
//! Records made with the `log` crate are filtered and put into form by `env_logger` on the thread that makes them; access
//! lines come as facts ([`super::access`]). One thread writes both. Core reference §2.1 and §7.6.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use env_logger::{Builder, Logger, Target};
use log::kv::{self, Key, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::access::AccessLog;
use super::format::{Form, Head, Line, Source, Value};
use super::queue::{Message, Queue};
pub use super::rotate::FileSettings;
use super::writer::{Console, Writer, console};

/// What is logged, how, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The least important level that is logged. Goma's default is `error`.
    pub level: LevelFilter,
    /// Text or JSON.
    pub format: Format,
    /// A file with rotation; `None` is the console.
    pub file: Option<FileSettings>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { level: LevelFilter::Error, format: Format::Text, file: None }
    }
}

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `key=value` pairs.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// At level info, in text, without a file, Goma never sets up its logger, so lines have Go's default form.
    pub(super) fn form(&self) -> Form {
        match self.format {
            Format::Json => Form::Json,
            Format::Text if self.level == LevelFilter::Info && self.file.is_none() => Form::GoDefault,
            Format::Text => Form::Text,
        }
    }
}

/// Installs the process's log. Only the first call does: a later one returns a handle to a log that nobody uses.
pub fn init(settings: &Settings) -> LogHandle {
    let (front, handle) = start(settings, console());
    if log::set_boxed_logger(Box::new(front)).is_ok() {
        log::set_max_level(settings.level);
    }
    handle
}

/// Starts the writer and makes both ends; separate from [`init`] so that tests need no global.
pub(super) fn start(settings: &Settings, console: Console) -> (Front, LogHandle) {
    let (queue, receiver, counts) = Queue::new();
    let shared = Arc::new(ArcSwap::from_pointee(settings.clone()));
    let logger = Arc::new(ArcSwap::from_pointee(logger(settings, &queue)));
    let settings = shared.clone();
    let write = move || Writer::new(settings, counts, console).run(&receiver);
    if let Err(error) = thread::Builder::new().name("log".into()).spawn(write) {
        let _ = writeln!(io::stderr(), "no thread for the log, nothing will be logged: {error}");
    }
    (Front { logger: logger.clone(), queue: queue.clone() }, LogHandle { settings: shared, logger, queue })
}

/// Changes and ends the log. Clones are the same log.
#[derive(Clone)]
pub struct LogHandle {
    settings: Arc<ArcSwap<Settings>>,
    logger: Arc<ArcSwap<Logger>>,
    queue: Arc<Queue>,
}

impl LogHandle {
    /// Applies other settings. The file is opened anew even when they are the same, as external rotation needs.
    pub fn reconfigure(&self, settings: &Settings) {
        self.settings.store(Arc::new(settings.clone()));
        self.logger.store(Arc::new(logger(settings, &self.queue)));
        log::set_max_level(settings.level);
    }

    /// Where access lines go.
    pub fn access(&self) -> AccessLog {
        AccessLog::new(self.queue.clone())
    }

    /// Waits until everything logged so far is written, two seconds at most; `false` if that was not enough.
    pub fn flush(&self) -> bool {
        self.queue.flush(PATIENCE)
    }

    /// Lines dropped since the start because they could not be written fast enough.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

const PATIENCE: Duration = Duration::from_secs(2);

/// What the `log` crate calls: the current filter and form.
pub(super) struct Front {
    logger: Arc<ArcSwap<Logger>>,
    queue: Arc<Queue>,
}

impl Log for Front {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.logger.load().enabled(metadata)
    }

    fn log(&self, record: &Record) {
        self.logger.load().log(record);
    }

    fn flush(&self) {
        self.queue.flush(PATIENCE);
    }
}

/// Filter and form for these settings, into the queue.
fn logger(settings: &Settings, queue: &Arc<Queue>) -> Logger {
    let mut builder = Builder::new();
    builder.filter_level(settings.level);
    for library in LIBRARIES {
        builder.filter_module(library, settings.level.min(LevelFilter::Warn));
    }
    let form = settings.form();
    let with_source = settings.level >= LevelFilter::Debug;
    builder.format(move |out, record| out.write_all(line(form, with_source, record).as_bytes()));
    builder.target(Target::Pipe(Box::new(Pipe { form, queue: queue.clone() })));
    builder.build()
}

/// Libraries whose lines below `warn` say nothing to operators, by the start of their targets. Some of them write whole
/// request heads, secrets and all.
const LIBRARIES: &[&str] =
    &["pingora", "h2", "hickory", "rustls", "hyper", "tokio", "tower", "reqwest", "mio", "notify", "want", "ldap3"];

/// `env_logger` writes each line with one call.
struct Pipe {
    form: Form,
    queue: Arc<Queue>,
}

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(Message::Line(self.form, String::from_utf8_lossy(line).into_owned()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line(form: Form, with_source: bool, record: &Record) -> String {
    let mut out = String::with_capacity(256);
    let mut message = String::new();
    // Fails only if a value's own `Display` does; what it wrote so far is kept.
    let _ = write!(message, "{}", record.args());
    let source = Source {
        module: record.module_path().unwrap_or_default(),
        file: record.file().unwrap_or_default(),
        line: record.line().unwrap_or_default(),
    };
    let head =
        Head { at: SystemTime::now(), level: record.level(), source: with_source.then_some(source), message: &message };
    let mut fields = Fields(Line::open(&mut out, form, &head));
    let _ = record.key_values().visit(&mut fields); // `Fields` never fails
    fields.0.close();
    out
}

/// Adds a record's fields to its line.
struct Fields<'o>(Line<'o>);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let known = None
            .or_else(|| value.to_bool().map(Value::Bool))
            .or_else(|| value.to_u64().map(Value::Uint))
            .or_else(|| value.to_i64().map(Value::Int))
            .or_else(|| value.to_f64().map(Value::Float));
        match known {
            Some(value) => self.0.add(key.as_str(), value),
            None => self.0.add(key.as_str(), Value::Text(&value.to_string())),
        }
        Ok(())
    }
}

/// The level of an access line: 5xx is an error, 4xx a warning.
pub(super) fn level_of_status(status: u16) -> Level {
    match status {
        500.. => Level::Error,
        400.. => Level::Warn,
        _ => Level::Info,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;

    /// A log whose console is kept in memory.
    pub fn captured(settings: &Settings) -> (Front, LogHandle, Arc<Mutex<String>>) {
        let kept = Arc::new(Mutex::new(String::new()));
        let console = kept.clone();
        let console: Console = Box::new(move |_, lines| {
            console.lock().unwrap().push_str(std::str::from_utf8(lines).unwrap());
            Ok(())
        });
        let (front, handle) = start(settings, console);
        (front, handle, kept)
    }

    fn settings(level: LevelFilter, format: Format) -> Settings {
        Settings { level, format, file: None }
    }

    fn tell(front: &Front, target: &str, level: Level, message: &str) {
        let fields: [(&str, kv::Value); 2] = [("url", "/a b".into()), ("status", 502.into())];
        let mut record = Record::builder();
        record.target(target).level(level).file(Some("src/x.rs")).line(Some(9)).key_values(&fields);
        front.log(&record.args(format_args!("{message}")).build());
    }

    #[test]
    fn the_form_follows_level_format_and_file() {
        let file = FileSettings { path: "x".into(), max_size_mb: 0, max_backups: 0, max_age_days: 0 };
        for (level, format, file, form) in [
            (LevelFilter::Info, Format::Text, None, Form::GoDefault),
            (LevelFilter::Error, Format::Text, None, Form::Text),
            (LevelFilter::Info, Format::Text, Some(file), Form::Text),
            (LevelFilter::Info, Format::Json, None, Form::Json),
            (LevelFilter::Debug, Format::Text, None, Form::Text),
        ] {
            assert_eq!(Settings { level, format, file }.form(), form, "{level} {format:?}");
        }
    }

    #[test]
    fn fields_follow_the_message() {
        let (front, handle, kept) = captured(&settings(LevelFilter::Error, Format::Text));
        tell(&front, "goma_edge", Level::Error, "Failed to proxy request");
        tell(&front, "goma_edge", Level::Warn, "not at this level");
        assert!(handle.flush());
        let kept = kept.lock().unwrap();
        assert!(kept.ends_with("level=ERROR msg=\"Failed to proxy request\" url=\"/a b\" status=502\n"), "{kept}");
        assert_eq!(kept.lines().count(), 1, "{kept}");
    }

    #[test]
    fn libraries_speak_only_when_they_warn_or_everything_is_wanted() {
        for (level, target, logged) in [
            (LevelFilter::Debug, "pingora_proxy::proxy_h1", false),
            (LevelFilter::Debug, "goma_edge::proxy", true),
            (LevelFilter::Trace, "pingora_proxy::proxy_h1", false),
        ] {
            let (front, handle, kept) = captured(&settings(level, Format::Text));
            tell(&front, target, Level::Debug, "detail");
            tell(&front, target, Level::Warn, "worth a look");
            assert!(handle.flush());
            let kept = kept.lock().unwrap();
            assert_eq!(kept.contains("detail"), logged, "{level} {target}: {kept}");
            assert!(kept.contains("source=src/x.rs:9 msg=\"worth a look\""), "{kept}");
        }
    }

    #[test]
    fn a_reload_changes_level_and_form() {
        let (front, handle, kept) = captured(&settings(LevelFilter::Error, Format::Text));
        tell(&front, "goma_edge", Level::Info, "before");
        let after = settings(LevelFilter::Info, Format::Json);
        handle.settings.store(Arc::new(after.clone()));
        handle.logger.store(Arc::new(logger(&after, &handle.queue)));
        tell(&front, "goma_edge", Level::Info, "after");
        assert!(handle.flush());
        let read: serde_json::Value = serde_json::from_str(&kept.lock().unwrap()).unwrap();
        assert_eq!((&read["msg"], &read["status"]), (&"after".into(), &502.into()));
    }

    #[test]
    fn what_was_logged_before_a_reload_goes_where_it_belonged() {
        let forms = Arc::new(Mutex::new(Vec::new()));
        let kept = forms.clone();
        let info = settings(LevelFilter::Info, Format::Text);
        let (front, handle) = start(
            &info,
            Box::new(move |form, lines| {
                kept.lock().unwrap().push((form, lines.iter().filter(|byte| **byte == b'\n').count()));
                Ok(())
            }),
        );
        tell(&front, "goma_edge", Level::Info, "before");
        let after = settings(LevelFilter::Info, Format::Json);
        handle.settings.store(Arc::new(after.clone()));
        handle.logger.store(Arc::new(logger(&after, &handle.queue)));
        tell(&front, "goma_edge", Level::Info, "after");
        assert!(handle.flush());
        assert_eq!(*forms.lock().unwrap(), [(Form::GoDefault, 1), (Form::Json, 1)]);
    }

    #[test]
    fn a_log_file_that_was_moved_away_is_made_anew_at_a_reload() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("goma.log");
        let file = FileSettings { path: path.clone(), max_size_mb: 1, max_backups: 1, max_age_days: 1 };
        let settings = Settings { file: Some(file), ..Settings::default() };
        let (front, handle, _) = captured(&settings);
        tell(&front, "goma_edge", Level::Error, "one");
        assert!(handle.flush());
        fs::rename(&path, folder.path().join("moved")).unwrap();
        handle.settings.store(Arc::new(settings));
        tell(&front, "goma_edge", Level::Error, "two");
        assert!(handle.flush());
        assert!(fs::read_to_string(folder.path().join("moved")).unwrap().contains("msg=one"));
        assert!(fs::read_to_string(&path).unwrap().contains("msg=two"));
    }

    #[test]
    fn without_its_file_the_log_goes_to_the_console_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        for (path, notice) in
            [(folder.path(), "Cannot open the log file"), (Path::new("/dev/full"), "Cannot write the log file")]
        {
            let file = FileSettings { path: path.into(), max_size_mb: 1, max_backups: 1, max_age_days: 1 };
            let (front, handle, kept) = captured(&Settings { file: Some(file), ..Settings::default() });
            tell(&front, "goma_edge", Level::Error, "still here");
            assert!(handle.flush());
            let kept = kept.lock().unwrap();
            assert!(kept.contains(notice) && kept.contains("still here"), "{kept}");
        }
    }
}
