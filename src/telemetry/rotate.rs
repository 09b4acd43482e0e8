//! A log file that is set aside when it has grown, and old ones removed. Names as lumberjack, which Goma uses, makes them:
//! `goma.log` becomes `goma-2026-11-22T10-00-00.000.log`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

/// Where the log goes and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// The file that is written; its folder is made if missing.
    pub path: PathBuf,
    /// Size at which it is set aside, in MiB; 0 stands for 100, as in Goma.
    pub max_size_mb: u64,
    /// How many set-aside files are kept; 0 keeps all.
    pub max_backups: usize,
    /// How long set-aside files are kept, in days; 0 keeps them whatever their age.
    pub max_age_days: u32,
}

/// The open file.
pub(super) struct Rotating {
    settings: FileSettings,
    file: File,
    /// Bytes in the file.
    size: u64,
}

impl Rotating {
    /// Opens the file at its end and removes what is too old.
    pub fn open(settings: &FileSettings) -> io::Result<Rotating> {
        if let Some(folder) = settings.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = append(&settings.path, 0o600)?;
        let size = file.metadata()?.len();
        let opened = Rotating { settings: settings.clone(), file, size };
        opened.prune();
        Ok(opened)
    }

    /// Writes whole lines; sets the file aside first if they would make it too large.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let more = lines.len() as u64;
        if self.size > 0 && self.size.saturating_add(more) > self.limit() {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.size += more;
        Ok(())
    }

    fn limit(&self) -> u64 {
        let mb = if self.settings.max_size_mb == 0 { 100 } else { self.settings.max_size_mb };
        mb.saturating_mul(1024 * 1024)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        let mode = self.file.metadata()?.permissions().mode() & 0o777;
        if path.exists() {
            fs::rename(path, self.free_name(SystemTime::now()))?;
        }
        self.file = append(path, mode)?;
        self.size = 0;
        self.prune();
        Ok(())
    }

    /// The name for a file set aside at `at`, a little later if that one is taken.
    fn free_name(&self, at: SystemTime) -> PathBuf {
        let names = (0..).map(|more| self.backup_name(at + Duration::from_millis(more)));
        let mut free = names.filter(|name| !name.exists());
        free.next().expect("an endless series of different names")
    }

    fn backup_name(&self, at: SystemTime) -> PathBuf {
        let time = DateTime::<Utc>::from(at).format(TIME);
        let (stem, extension) = name_parts(&self.settings.path);
        self.settings.path.with_file_name(format!("{stem}-{time}{extension}"))
    }

    /// Removes set-aside files beyond the number and age to keep. One that cannot be removed is tried again next time.
    fn prune(&self) {
        let mut backups = self.backups();
        backups.sort_by(|a, b| b.cmp(a));
        let oldest = match self.settings.max_age_days {
            0 => DateTime::<Utc>::MIN_UTC,
            days => Utc::now() - TimeDelta::days(days.into()),
        };
        let keep = if self.settings.max_backups == 0 { usize::MAX } else { self.settings.max_backups };
        let too_old = |(place, (at, _)): &(usize, (NaiveDateTime, PathBuf))| *place >= keep || at.and_utc() < oldest;
        for (_, (_, path)) in backups.into_iter().enumerate().filter(too_old) {
            let _ = fs::remove_file(path);
        }
    }

    /// The set-aside files with their times; only names of the exact form count, so that nothing else is ever removed.
    fn backups(&self) -> Vec<(NaiveDateTime, PathBuf)> {
        let (stem, extension) = name_parts(&self.settings.path);
        let folder = match self.settings.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let backups = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let time = name.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
            Some((NaiveDateTime::parse_from_str(time, TIME).ok()?, entry.path()))
        });
        backups.collect()
    }
}

/// UTC with milliseconds, without characters that file systems refuse.
const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// File name without extension, and extension with its dot.
fn name_parts(path: &Path) -> (String, String) {
    let part = |part: Option<&std::ffi::OsStr>| part.map(|text| text.to_string_lossy().into_owned());
    let extension = part(path.extension()).map(|extension| format!(".{extension}"));
    (part(path.file_stem()).unwrap_or_default(), extension.unwrap_or_default())
}

fn append(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(mode).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path) -> FileSettings {
        FileSettings { path: folder.join("logs/goma.log"), max_size_mb: 1, max_backups: 2, max_age_days: 7 }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder.join("logs")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_set_aside_under_its_time_and_few_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Rotating::open(&settings(folder.path())).unwrap();
        let half = vec![b'x'; 600 * 1024];
        for _ in 0..6 {
            log.write(&half).unwrap();
        }
        let names = names(folder.path());
        assert_eq!(names.len(), 3, "the file and two backups: {names:?}");
        assert_eq!(names[2], "goma.log");
        for backup in &names[..2] {
            assert!(backup.starts_with("goma-20") && backup.ends_with(".log"), "{backup}");
            assert_eq!(backup.len(), "goma-2026-11-22T10-00-00.000.log".len(), "{backup}");
        }
        let size = |name: &str| fs::metadata(folder.path().join("logs").join(name)).unwrap().len();
        assert!(names.iter().all(|name| size(name) == 600 * 1024));
    }

    #[test]
    fn old_files_go_and_foreign_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let recent = DateTime::<Utc>::from(SystemTime::now()).format(TIME);
        let stay = [format!("goma-{recent}.log"), "goma-old.log".into(), "other-2001-01-01T00-00-00.000.log".into()];
        for name in stay.iter().map(String::as_str).chain(["goma-2001-01-01T00-00-00.000.log"]) {
            fs::write(logs.join(name), "x").unwrap();
        }
        Rotating::open(&settings(folder.path())).unwrap();
        let mut expected = Vec::from(stay);
        expected.push("goma.log".into());
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn writing_goes_on_where_the_last_process_stopped() {
        let folder = tempfile::tempdir().unwrap();
        for line in ["one\n", "two\n"] {
            Rotating::open(&settings(folder.path())).unwrap().write(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(folder.path().join("logs/goma.log")).unwrap(), "one\ntwo\n");
        let mode = fs::metadata(folder.path().join("logs/goma.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
