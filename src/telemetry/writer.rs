//! The one thread that writes the log.
//!
//! It takes all that waits, puts it into form, and writes it with one call. After a busy round it rests for a moment, so
//! that under load those who log find it awake and need not wake it for every line.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use log::Level;

use super::format::{Form, Head, Line, Value};
use super::log::Settings;
use super::queue::{Counts, Message};
use super::rotate::Rotating;

/// Where lines go when not to a file. Called with the form, because Go's default form goes to standard error.
pub(super) type Console = Box<dyn FnMut(Form, &[u8]) -> io::Result<()> + Send>;

/// Standard output and standard error.
pub(super) fn console() -> Console {
    Box::new(|form, lines| match form {
        Form::GoDefault => io::stderr().lock().write_all(lines),
        Form::Text | Form::Json => {
            let mut out = io::stdout().lock();
            out.write_all(lines)?;
            out.flush()
        }
    })
}

/// The writer's own state.
pub(super) struct Writer {
    settings: Arc<ArcSwap<Settings>>,
    /// Settings that `file` was opened for.
    opened: Arc<Settings>,
    file: Option<Rotating>,
    /// When a file that could not be opened or written is tried again.
    retry_at: Instant,
    console: Console,
    counts: Arc<Counts>,
    /// Dropped records that were already told of.
    told: u64,
    /// Lines to be written, all of one form.
    out: String,
    form: Form,
}

impl Writer {
    pub fn new(settings: Arc<ArcSwap<Settings>>, counts: Arc<Counts>, console: Console) -> Writer {
        let opened = settings.load_full();
        let mut writer = Writer {
            form: opened.form(),
            opened,
            settings,
            file: None,
            retry_at: Instant::now(),
            console,
            counts,
            told: 0,
            out: String::new(),
        };
        writer.open();
        writer
    }

    /// Writes until every sender is gone.
    pub fn run(mut self, receiver: &Receiver<Message>) {
        while let Ok(first) = receiver.recv() {
            let mut flushed = Vec::new();
            let mut taken = 0;
            self.follow_settings();
            let more = receiver.try_iter().take(ROUND);
            for message in std::iter::once(first).chain(more) {
                self.take(message, &mut flushed);
                taken += 1;
                if self.out.len() > BATCH_BYTES {
                    self.write();
                }
            }
            self.tell_of_drops();
            self.write();
            let waited_for = !flushed.is_empty();
            for done in flushed {
                let _ = done.send(()); // whoever asked may have lost patience
            }
            if taken > 1 && !waited_for {
                thread::sleep(REST);
            }
        }
    }

    /// Where lines of this form are collected; those of another form are written first.
    fn batch(&mut self, form: Form) -> &mut String {
        if self.form != form {
            self.write();
            self.form = form;
        }
        &mut self.out
    }

    fn take(&mut self, message: Message, flushed: &mut Vec<SyncSender<()>>) {
        self.counts.waiting.fetch_sub(message.size(), Relaxed);
        match message {
            Message::Line(form, line) => self.batch(form).push_str(&line),
            Message::Record(record) => {
                let form = self.opened.form();
                record.write(self.batch(form), form);
            }
            Message::Flush(done) => flushed.push(done),
        }
    }

    /// Opens the file anew when the settings were given anew, even if they are the same: the file may have been moved away.
    fn follow_settings(&mut self) {
        let settings = self.settings.load_full();
        let is_new = !Arc::ptr_eq(&settings, &self.opened);
        let is_missing = self.file.is_none() && settings.file.is_some() && Instant::now() >= self.retry_at;
        if is_new || is_missing {
            self.opened = settings;
            self.open();
        }
    }

    fn open(&mut self) {
        self.file = None;
        let Some(settings) = &self.opened.file else {
            return;
        };
        match Rotating::open(settings) {
            Ok(file) => self.file = Some(file),
            Err(error) => self.fall_back("Cannot open the log file", &error),
        }
    }

    fn write(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut self.out);
        let to_file = self.file.as_mut().map(|file| file.write(lines.as_bytes()));
        if let Some(Err(error)) = &to_file {
            self.fall_back("Cannot write the log file", error);
        }
        if !matches!(to_file, Some(Ok(()))) && (self.console)(self.form, lines.as_bytes()).is_err() {
            self.lost(&lines);
        }
        self.out = lines;
        self.out.clear();
        self.out.shrink_to(2 * BATCH_BYTES);
    }

    /// Without a file the log goes to the console; the file is tried again later.
    fn fall_back(&mut self, message: &str, error: &io::Error) {
        self.file = None;
        self.retry_at = Instant::now() + RETRY;
        let path = self.opened.file.as_ref().map(|file| file.path.display().to_string());
        let fields = [("path", path.unwrap_or_default()), ("error", error.to_string())];
        let mut notice = String::new();
        own_line(&mut notice, self.opened.form(), message, &fields);
        let _ = (self.console)(self.opened.form(), notice.as_bytes()); // there is no further place to say it
    }

    /// Not even the console takes them: they are counted, and there is nobody to tell.
    fn lost(&mut self, lines: &str) {
        let lines = lines.lines().count() as u64;
        self.told = self.counts.dropped.fetch_add(lines, Relaxed) + lines;
    }

    fn tell_of_drops(&mut self) {
        let dropped = self.counts.dropped.load(Relaxed);
        if dropped > self.told {
            let fields = [("lines", (dropped - self.told).to_string())];
            let form = self.opened.form();
            own_line(self.batch(form), form, "Log lines dropped", &fields);
            self.told = dropped;
        }
    }
}

/// A line of the writer itself, which cannot use the log.
fn own_line(out: &mut String, form: Form, message: &str, fields: &[(&str, String)]) {
    let head = Head { at: SystemTime::now(), level: Level::Error, source: None, message };
    let mut line = Line::open(out, form, &head);
    for (key, value) in fields {
        line.add(key, Value::Text(value));
    }
    line.close();
}

/// Bytes that are collected before they are written.
const BATCH_BYTES: usize = 256 * 1024;
/// Records of one round; the settings are looked at between rounds.
const ROUND: usize = 1024;
/// Pause after a round in which more than one record came.
const REST: Duration = Duration::from_millis(2);
/// Time until a file that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);
