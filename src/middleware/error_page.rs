//! Pages that stand in for the body of a response: ready to be sent, made when the configuration is compiled.
//!
//! A file is read when the configuration is, and again when its time of change is another one; the request that notices
//! gets the old content and waits for nothing. Spec middlewares W-46.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::reply::{self, Form};

/// Content with its type.
#[derive(Debug)]
pub enum Page {
    /// The same for everybody.
    Fixed(HeaderValue, Bytes),
    /// A message in each of the forms that a client may ask for.
    Negotiated(Box<[(Form, HeaderValue, Bytes); 3]>),
    /// A file.
    File(HeaderValue, Arc<Watched>),
}

impl Page {
    /// A message in the form that each client asks for.
    pub fn negotiated(status: StatusCode, message: &str) -> Page {
        let written = |form| {
            let (content_type, body) = reply::write(form, status, message);
            (form, HeaderValue::from_static(content_type), body)
        };
        Page::Negotiated(Box::new([written(Form::Text), written(Form::Json), written(Form::Xml)]))
    }

    /// A message in one form.
    pub fn fixed(status: StatusCode, message: &str, form: Form) -> Page {
        let (content_type, body) = reply::write(form, status, message);
        Page::Fixed(HeaderValue::from_static(content_type), body)
    }

    /// The content for this client.
    pub fn content(&self, request: &HeaderMap) -> (HeaderValue, Bytes) {
        match self {
            Page::Fixed(content_type, body) => (content_type.clone(), body.clone()),
            Page::File(content_type, file) => (content_type.clone(), file.content()),
            Page::Negotiated(forms) => {
                let asked = Form::asked(request);
                let [first, ..] = &**forms;
                let (_, content_type, body) = forms.iter().find(|(form, ..)| *form == asked).unwrap_or(first);
                (content_type.clone(), body.clone())
            }
        }
    }
}

/// A file whose content is at hand.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    read: ArcSwap<Read>,
    /// When it was last looked at, in milliseconds since `opened`.
    looked: AtomicU64,
    opened: Instant,
}

#[derive(Debug)]
struct Read {
    content: Bytes,
    stamp: Stamp,
}

/// What changes when a file does.
type Stamp = (Option<SystemTime>, u64);

impl Watched {
    fn open(path: &Path) -> io::Result<Watched> {
        let read = ArcSwap::from_pointee(Read::of(path)?);
        Ok(Watched { path: path.to_owned(), read, looked: AtomicU64::new(0), opened: Instant::now() })
    }

    /// The content as it was last read; now and then somebody is sent to look whether it is still so.
    fn content(self: &Arc<Self>) -> Bytes {
        if self.is_due() && tokio::runtime::Handle::try_current().is_ok() {
            let file = self.clone();
            tokio::task::spawn_blocking(move || file.look());
        }
        self.read.load().content.clone()
    }

    /// Whether it is time to look again; says so to one of all that ask at the same time.
    fn is_due(&self) -> bool {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let looked = self.looked.load(Ordering::Relaxed);
        let due = now.saturating_sub(looked) >= LOOK_MS;
        due && self.looked.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Reads it again if it has changed. A file that cannot be read keeps its last content.
    fn look(&self) {
        let stamp = fs::metadata(&self.path).map(|found| stamp(&found));
        if stamp.as_ref().is_ok_and(|stamp| *stamp == self.read.load().stamp) {
            return;
        }
        match stamp.and_then(|_| Read::of(&self.path)) {
            Ok(read) => self.read.store(Arc::new(read)),
            Err(error) => log::warn!("{} cannot be read, its last content is sent: {error}", self.path.display()),
        }
    }
}

const LOOK_MS: u64 = 1000;

/// Whether a file can be a page.
///
/// # Errors
/// When it cannot be read or is larger than 10 MiB.
pub fn readable(path: &Path) -> io::Result<()> {
    Read::of(path).map(drop)
}

impl Read {
    fn of(path: &Path) -> io::Result<Read> {
        let found = fs::metadata(path)?;
        if found.is_dir() {
            return Err(io::Error::other("is a folder"));
        }
        if found.len() > LARGEST {
            return Err(io::Error::other("is larger than 10 MiB"));
        }
        Ok(Read { stamp: stamp(&found), content: fs::read(path)?.into() })
    }
}

fn stamp(found: &fs::Metadata) -> Stamp {
    (found.modified().ok(), found.len())
}

/// A page is held in memory.
const LARGEST: u64 = 10 << 20;

/// The files of all pages: each is held once, however many routes use it.
#[derive(Debug, Default)]
pub struct Files(Mutex<HashMap<PathBuf, Weak<Watched>>>);

impl Files {
    /// The file, with its content of now.
    ///
    /// # Errors
    /// When it cannot be read or is larger than 10 MiB.
    pub fn open(&self, path: &Path) -> io::Result<Arc<Watched>> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files.get(path).and_then(Weak::upgrade) {
            Read::of(path)?;
            known.look();
            return Ok(known);
        }
        files.retain(|_, file| file.strong_count() > 0);
        let opened = Arc::new(Watched::open(path)?);
        files.insert(path.to_owned(), Arc::downgrade(&opened));
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_held_once_and_read_again_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("404.html");
        let files = Files::default();
        assert!(files.open(&path).is_err(), "a missing file");
        fs::write(&path, "one").unwrap();
        let file = files.open(&path).unwrap();
        assert_eq!(file.content(), "one");
        fs::write(&path, "three").unwrap();
        assert_eq!(file.content(), "one", "nobody waits for the disk");
        file.look();
        assert_eq!(file.content(), "three");
        fs::remove_file(&path).unwrap();
        file.look();
        assert_eq!(file.content(), "three", "a page that is gone is still better than none");
        assert!(files.open(&path).is_err(), "a new configuration wants a file that is there");
        fs::write(&path, "back").unwrap();
        assert!(Arc::ptr_eq(&file, &files.open(&path).unwrap()));
        assert_eq!(file.content(), "back");
    }

    #[test]
    fn one_of_many_is_sent_to_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        fs::write(&path, "x").unwrap();
        let mut file = Watched::open(&path).unwrap();
        assert!(!file.is_due());
        file.opened -= std::time::Duration::from_secs(2);
        assert!(file.is_due());
        assert!(!file.is_due());
    }
}
