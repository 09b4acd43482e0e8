//! Watches files and folders, and gives notice when they have changed.
//!
//! Events of the file system are only hints: they say *look now*. Whether anything changed is decided by comparing
//! fingerprints of all watched files, through symbolic links, so that writes in place, atomic replacement, a swapped
//! `..data` link of Kubernetes, nested folders and folders that come and go are all the same to us, and opening or reading a
//! file is nothing. Now and then it looks without a hint, for file systems that send none.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::scan::{Identity, Scan};

/// A path to watch. It need not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// A file or a folder. A relative one is meant from the current folder.
    pub path: PathBuf,
    /// How far into a folder.
    pub depth: Depth,
    /// Endings of the files that matter in a folder, without the dot; none means all. A file named itself always matters.
    pub extensions: &'static [&'static str],
}

/// How far a folder is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The files in it.
    Flat,
    /// All that is below it, except folders whose names start with a dot.
    Tree,
}

impl Watched {
    /// One file.
    pub fn file(path: impl Into<PathBuf>) -> Watched {
        Watched { path: path.into(), depth: Depth::Flat, extensions: &[] }
    }

    /// A folder and all below it, of which files with these endings matter.
    pub fn tree(path: impl Into<PathBuf>, extensions: &'static [&'static str]) -> Watched {
        Watched { path: path.into(), depth: Depth::Tree, extensions }
    }

    pub(super) fn wants(&self, file: &Path) -> bool {
        let extension = file.extension().and_then(|extension| extension.to_str());
        self.extensions.is_empty() || extension.is_some_and(|extension| self.extensions.contains(&extension))
    }
}

/// Watching goes on until this is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Sender<Hint>,
}

impl Watch {
    /// Starts watching. What changes from here on gives a notice, at most one of which waits to be taken: so start before
    /// reading the files. A notice comes when nothing has changed for half a second, or two seconds after the first change.
    ///
    /// # Errors
    /// When no thread can be started. Without events from the system it still looks every five seconds.
    pub fn start(watched: Vec<Watched>) -> io::Result<(Watch, mpsc::Receiver<()>)> {
        Watch::with_pace(watched, Pace::default())
    }

    fn with_pace(watched: Vec<Watched>, pace: Pace) -> io::Result<(Watch, mpsc::Receiver<()>)> {
        let (hint, hints) = channel();
        let (notice, notices) = mpsc::channel(1);
        let mut watcher = Watching::new(watched, pace, hint.clone(), notice);
        watcher.look();
        thread::Builder::new().name("watch".into()).spawn(move || watcher.run(&hints))?;
        Ok((Watch { stop: hint }, notices))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.stop.send(Hint::Stop); // an error means that the thread has ended already
    }
}

/// How long to wait for what.
#[derive(Clone, Copy)]
struct Pace {
    /// Time without a hint after which changes are complete.
    quiet: Duration,
    /// Longest time from the first hint to the look.
    at_most: Duration,
    /// Time between looks without a hint.
    poll: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { quiet: Duration::from_millis(500), at_most: Duration::from_secs(2), poll: Duration::from_secs(5) }
    }
}

/// What wakes the thread.
enum Hint {
    /// Something happened somewhere near.
    Look,
    /// These paths were removed or moved: watches on them may be dead.
    Gone(Vec<PathBuf>),
    Stop,
}

impl Hint {
    fn of(event: notify::Result<Event>) -> Option<Hint> {
        let Ok(event) = event else {
            return Some(Hint::Look); // the queue of events overflowed, or worse: look
        };
        match event.kind {
            // Our own reading causes these.
            EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write) => None,
            EventKind::Remove(_) | EventKind::Modify(notify::event::ModifyKind::Name(_)) => {
                Some(Hint::Gone(event.paths))
            }
            _ => Some(Hint::Look),
        }
    }
}

/// The thread's state.
struct Watching {
    watched: Vec<Watched>,
    pace: Pace,
    notice: mpsc::Sender<()>,
    events: Option<RecommendedWatcher>,
    /// Folders that send events, as they were when that was asked for.
    folders: BTreeMap<PathBuf, Identity>,
    /// Folders that refused, so that it is said once.
    refused: BTreeSet<PathBuf>,
    fingerprint: u64,
}

impl Watching {
    fn new(watched: Vec<Watched>, pace: Pace, hint: Sender<Hint>, notice: mpsc::Sender<()>) -> Watching {
        let events = notify::recommended_watcher(move |event| {
            if let Some(event) = Hint::of(event) {
                let _ = hint.send(event); // an error means that watching has ended
            }
        });
        let events = events.inspect_err(|error| {
            log::warn!(error:% = error; "No file events, configuration files are polled");
        });
        let (folders, refused) = Default::default();
        Watching { watched, pace, notice, events: events.ok(), folders, refused, fingerprint: 0 }
    }

    fn run(mut self, hints: &Receiver<Hint>) {
        loop {
            match hints.recv_timeout(self.pace.poll) {
                Ok(hint) => {
                    if !self.settle(hint, hints) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.look() {
                let _ = self.notice.try_send(()); // full: one waits already and will see this change too
            }
            if self.notice.is_closed() {
                return;
            }
        }
    }

    /// Waits until the changes are complete; `false` when watching is to end.
    fn settle(&mut self, first: Hint, hints: &Receiver<Hint>) -> bool {
        let deadline = Instant::now() + self.pace.at_most;
        let mut hint = first;
        loop {
            match hint {
                Hint::Look => {}
                Hint::Gone(paths) => self.forget(&paths),
                Hint::Stop => return false,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match hints.recv_timeout(self.pace.quiet.min(left)) {
                Ok(next) => hint = next,
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Looks at everything; `true` when it has changed since the last look. Folders that are new are watched and looked at
    /// again, for what came into them before they were.
    fn look(&mut self) -> bool {
        let mut scan = Scan::of(&self.watched);
        for _ in 0..MAX_ROUNDS {
            if !self.follow(&scan) {
                break;
            }
            scan = Scan::of(&self.watched);
        }
        let before = std::mem::replace(&mut self.fingerprint, scan.fingerprint());
        before != self.fingerprint
    }

    /// Watches exactly the folders of this scan; `true` when one was added.
    fn follow(&mut self, scan: &Scan) -> bool {
        let gone: Vec<_> = self.folders.iter().filter(|(path, id)| scan.folders.get(*path) != Some(id)).collect();
        let gone: Vec<_> = gone.into_iter().map(|(path, _)| path.clone()).collect();
        self.forget(&gone);
        let new: Vec<_> = scan.folders.iter().filter(|(path, _)| !self.folders.contains_key(*path)).collect();
        new.into_iter().fold(false, |added, (path, id)| self.follow_folder(path, *id) || added)
    }

    fn follow_folder(&mut self, path: &Path, id: Identity) -> bool {
        let Some(events) = &mut self.events else {
            return false;
        };
        match events.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.refused.remove(path);
                self.folders.insert(path.to_owned(), id);
                true
            }
            Err(error) => {
                if self.refused.len() < MAX_REFUSED && self.refused.insert(path.to_owned()) {
                    log::warn!(path:% = path.display(), error:% = error; "No file events, the folder is polled");
                }
                false
            }
        }
    }

    fn forget(&mut self, paths: &[PathBuf]) {
        for path in paths {
            if self.folders.remove(path).is_some()
                && let Some(events) = &mut self.events
            {
                let _ = events.unwatch(path); // an error means that it is gone already, which is the point
            }
        }
    }
}

/// Looks in a row that each found new folders to watch, before the rest is left to the next look.
const MAX_ROUNDS: usize = 4;
/// Folders for which a missing event source is told.
const MAX_REFUSED: usize = 100;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const YAML: &[&str] = &["yml", "yaml"];

    struct Case {
        root: tempfile::TempDir,
        _watch: Watch,
        notices: mpsc::Receiver<()>,
    }

    impl Case {
        /// Prepares a folder, then watches paths in it. Polling is off, so that events must do it.
        fn new(prepare: impl FnOnce(&Path), watched: impl FnOnce(&Path) -> Vec<Watched>) -> Case {
            let root = tempfile::tempdir().unwrap();
            prepare(root.path());
            let pace = Pace {
                quiet: Duration::from_millis(40),
                at_most: Duration::from_millis(400),
                poll: Duration::from_secs(3600),
            };
            let (watch, notices) = Watch::with_pace(watched(root.path()), pace).unwrap();
            Case { root, _watch: watch, notices }
        }

        fn tree(prepare: impl FnOnce(&Path)) -> Case {
            Case::new(prepare, |root| vec![Watched::tree(root.join("conf"), YAML)])
        }

        fn notices_after(&mut self, what: &str, change: impl FnOnce(&Path)) {
            while self.notices.try_recv().is_ok() {}
            change(self.root.path());
            assert!(self.notice_within(Duration::from_secs(10)), "no notice: {what}");
        }

        fn silent_after(&mut self, what: &str, change: impl FnOnce(&Path)) {
            change(self.root.path());
            assert!(!self.notice_within(Duration::from_millis(300)), "a notice: {what}");
        }

        fn notice_within(&mut self, patience: Duration) -> bool {
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline {
                if self.notices.try_recv().is_ok() {
                    return true;
                }
                thread::sleep(Duration::from_millis(2));
            }
            false
        }
    }

    fn write(path: impl AsRef<Path>, text: &str) {
        fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn every_way_to_change_a_file_is_noticed() {
        let mut case = Case::tree(|root| write(root.join("conf/a.yml"), "1"));
        case.notices_after("written in place", |root| write(root.join("conf/a.yml"), "2"));
        case.notices_after("created", |root| write(root.join("conf/b.yml"), "1"));
        case.notices_after("replaced atomically", |root| {
            write(root.join("conf/b.tmp"), "2");
            fs::rename(root.join("conf/b.tmp"), root.join("conf/b.yml")).unwrap();
        });
        case.notices_after("renamed", |root| fs::rename(root.join("conf/b.yml"), root.join("conf/c.yml")).unwrap());
        case.notices_after("removed", |root| fs::remove_file(root.join("conf/c.yml")).unwrap());
    }

    #[test]
    fn what_changes_nothing_gives_no_notice() {
        let mut case = Case::tree(|root| write(root.join("conf/a.yml"), "1"));
        case.silent_after("read", |root| drop(fs::read(root.join("conf/a.yml")).unwrap()));
        case.silent_after("another kind of file", |root| write(root.join("conf/goma.log"), "line"));
        case.silent_after("came and went", |root| {
            write(root.join("conf/x.yml"), "1");
            fs::remove_file(root.join("conf/x.yml")).unwrap();
        });
        case.silent_after("a hidden folder", |root| write(root.join("conf/.git/x.yml"), "1"));
        case.silent_after("beside the folder", |root| write(root.join("other.yml"), "1"));
    }

    #[test]
    fn many_changes_in_a_row_give_one_notice() {
        let mut case = Case::tree(|root| write(root.join("conf/a.yml"), "1"));
        case.notices_after("a burst", |root| {
            (0..50).for_each(|number| write(root.join(format!("conf/{number}.yml")), "1"));
        });
        case.silent_after("the burst is over", |_| {});
    }

    #[test]
    fn changes_without_end_are_noticed_all_the_same() {
        let mut case = Case::tree(|root| write(root.join("conf/a.yml"), "1"));
        let path = case.root.path().join("conf/a.yml");
        let (stop, stopped) = channel::<()>();
        let writer = thread::spawn(move || {
            let mut text = String::new();
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                text.push('x');
                fs::write(&path, &text).unwrap();
            }
        });
        assert!(case.notice_within(Duration::from_secs(10)));
        drop(stop);
        writer.join().unwrap();
    }

    #[test]
    fn folders_made_later_are_watched_too() {
        let mut case = Case::tree(|root| write(root.join("conf/a.yml"), "1"));
        case.notices_after("a nested file", |root| write(root.join("conf/x/y/z/a.yml"), "1"));
        case.notices_after("changed there", |root| write(root.join("conf/x/y/z/a.yml"), "2"));
        case.notices_after("moved in with its folder", |root| {
            write(root.join("outside/b.yml"), "1");
            fs::rename(root.join("outside"), root.join("conf/inside")).unwrap();
        });
        case.notices_after("changed there", |root| write(root.join("conf/inside/b.yml"), "2"));
    }

    #[test]
    fn a_folder_may_come_late_go_and_come_back() {
        let mut case = Case::new(|_| {}, |root| vec![Watched::tree(root.join("etc/goma/conf"), YAML)]);
        for round in ["first", "second", "third"] {
            case.notices_after(round, |root| write(root.join("etc/goma/conf/a.yml"), round));
            case.notices_after("changed", |root| write(root.join("etc/goma/conf/a.yml"), "changed"));
            case.notices_after("gone", |root| fs::remove_dir_all(root.join("etc")).unwrap());
        }
    }

    #[test]
    fn a_folder_replaced_at_once_is_watched_on() {
        let mut case = Case::tree(|root| write(root.join("conf/a.yml"), "1"));
        for text in ["2", "3", "4"] {
            case.notices_after("replaced", |root| {
                fs::remove_dir_all(root.join("conf")).unwrap();
                write(root.join("conf/a.yml"), text);
            });
            case.notices_after("changed afterwards", |root| write(root.join("conf/a.yml"), "changed"));
        }
    }

    /// As Kubernetes updates a mounted volume: a new generation, then the link `..data` is swapped.
    fn generation(root: &Path, name: &str, text: &str) {
        write(root.join("conf").join(name).join("a.yml"), text);
        symlink(name, root.join("conf/..data_tmp")).unwrap();
        fs::rename(root.join("conf/..data_tmp"), root.join("conf/..data")).unwrap();
    }

    #[test]
    fn the_swapped_link_of_a_mounted_volume_is_noticed() {
        let prepare = |root: &Path| {
            generation(root, "..one", "1");
            symlink("..data/a.yml", root.join("conf/a.yml")).unwrap();
        };
        for (what, watched) in
            [("as a folder", Watched::tree("conf", YAML)), ("as a file", Watched::file("conf/a.yml"))]
        {
            let mut case =
                Case::new(prepare, |root| vec![Watched { path: root.join(&watched.path), ..watched.clone() }]);
            case.notices_after(what, |root| {
                generation(root, "..two", "1");
                fs::remove_dir_all(root.join("conf/..one")).unwrap();
            });
            case.notices_after(what, |root| generation(root, "..three", "1"));
        }
    }

    #[test]
    fn links_are_followed_wherever_they_lead() {
        let prepare = |root: &Path| {
            write(root.join("releases/1/conf/a.yml"), "1");
            write(root.join("releases/2/conf/a.yml"), "1");
            symlink("releases/1", root.join("current")).unwrap();
        };
        let mut case = Case::new(prepare, |root| vec![Watched::file(root.join("current/conf/a.yml"))]);
        case.notices_after("the target is written", |root| write(root.join("releases/1/conf/a.yml"), "2"));
        case.notices_after("a link on the way is swapped", |root| {
            symlink("releases/2", root.join("next")).unwrap();
            fs::rename(root.join("next"), root.join("current")).unwrap();
        });
        case.notices_after("the new target is written", |root| write(root.join("releases/2/conf/a.yml"), "2"));
    }

    #[test]
    fn links_in_a_circle_end() {
        let prepare = |root: &Path| {
            write(root.join("conf/a.yml"), "1");
            symlink(".", root.join("conf/self")).unwrap();
            symlink("b.yml", root.join("conf/c.yml")).unwrap();
            symlink("c.yml", root.join("conf/b.yml")).unwrap();
        };
        let mut case = Case::tree(prepare);
        case.notices_after("a change", |root| write(root.join("conf/a.yml"), "2"));
    }

    #[test]
    fn a_single_file_may_come_late_and_be_replaced() {
        let mut case = Case::new(|_| {}, |root| vec![Watched::file(root.join("goma.conf"))]);
        case.notices_after("created", |root| write(root.join("goma.conf"), "1"));
        case.notices_after("replaced", |root| {
            write(root.join("goma.new"), "2");
            fs::rename(root.join("goma.new"), root.join("goma.conf")).unwrap();
        });
        case.silent_after("a neighbour", |root| write(root.join("other.conf"), "1"));
    }

    #[test]
    fn without_events_polling_notices() {
        let prepare = |root: &Path| write(root.join("conf/a.yml"), "1");
        let watched = |root: &Path| vec![Watched::tree(root.join("conf"), YAML)];
        let root = tempfile::tempdir().unwrap();
        prepare(root.path());
        let pace = Pace { poll: Duration::from_millis(20), ..Pace::default() };
        let (_stop, hints) = channel();
        let (notice, mut notices) = mpsc::channel(1);
        let mut deaf = Watching::new(watched(root.path()), pace, channel().0, notice);
        deaf.events = None;
        deaf.look();
        thread::spawn(move || deaf.run(&hints));
        write(root.path().join("conf/a.yml"), "2");
        assert!(notices.blocking_recv().is_some());
    }

    #[test]
    fn watching_ends_with_its_handle() {
        let mut case = Case::tree(|root| write(root.join("conf/a.yml"), "1"));
        let Case { _watch: watch, notices, .. } = &mut case;
        let (other, _) = Watch::with_pace(vec![], Pace::default()).unwrap();
        drop(std::mem::replace(watch, other));
        assert!(notices.blocking_recv().is_none());
    }
}
