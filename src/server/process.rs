//! The state of the running process: the configuration in force, readiness, and the one way to a new configuration.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::needs_restart;
use crate::config::{self, Config, Env, Examined, Format, Gateway, Level, Loaded, Problem, Report, Source, Watched};
use crate::entry::Count;
use crate::provider::{self, Watch};
use crate::proxy::Control;
use crate::snapshot::{Snapshot, Workshop, build, material, secure};
use crate::telemetry::log::{self as logging, FileSettings, LogHandle, Settings as LogSettings};
use crate::telemetry::metrics::{Metrics, Reload};
use crate::tls::Keeper;

/// The process behind the gateway.
pub struct Process {
    source: Source,
    live: Arc<ArcSwap<Snapshot>>,
    workshop: Workshop,
    config: Mutex<Arc<Config>>,
    /// What the files said that it was compiled from.
    material: Mutex<[u8; 32]>,
    log: LogHandle,
    watch: Mutex<Option<(Vec<provider::Watched>, Watch)>>,
    reloading: tokio::sync::Mutex<()>,
    bound: AtomicBool,
    stopping: AtomicBool,
    draining: AtomicBool,
    had_extra: AtomicBool,
}

impl Process {
    /// Compiles the first configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn start(source: Source, examined: Examined, log: LogHandle) -> Result<Arc<Process>, Report> {
        let workshop = Workshop::new(&examined.loaded.config, &source.env, Some(Handle::current()));
        let read = material::digest(&examined.loaded.config);
        let (snapshot, Loaded { config, warnings, watched }) = build(examined, &workshop)?;
        told(&warnings);
        let process = Arc::new(Process {
            source,
            live: Arc::new(ArcSwap::from_pointee(snapshot)),
            workshop,
            config: Mutex::new(Arc::new(config)),
            material: Mutex::new(read),
            log,
            watch: Mutex::new(None),
            reloading: tokio::sync::Mutex::new(()),
            bound: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            had_extra: AtomicBool::new(watched.extra.as_ref().is_some_and(|extra| extra.directory.is_dir())),
        });
        process.certify();
        process.count_configuration();
        process.follow(&watched);
        Ok(process)
    }

    /// Begins what runs beside requests and is shared with others: the `first` process of a line may empty what they share.
    pub fn begin(&self, first: bool) {
        let tools = &self.workshop.tools;
        if let Some(redis) = &tools.redis {
            redis.start(first);
        }
        tools.metrics.visitors().start(&Handle::current(), tools.redis.clone());
    }

    /// The snapshot in force.
    pub fn live(&self) -> &Arc<ArcSwap<Snapshot>> {
        &self.live
    }

    /// Counters of the process.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.workshop.tools.metrics
    }

    /// Certificates in force.
    pub fn certificates(&self) -> &Arc<Keeper> {
        &self.workshop.certificates
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        lock(&self.config).clone()
    }

    /// Every listener is bound.
    pub fn ready(&self) {
        self.bound.store(true, Ordering::Release);
    }

    /// Told to stop: not ready from now on, still serving.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Keep-alive ends.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Reads everything again and, if it is valid and different, puts it in force. One at a time.
    ///
    /// # Errors
    /// What is wrong, in one line a problem; the old configuration stays.
    pub async fn reload(self: &Arc<Self>) -> Result<usize, String> {
        let _one = self.reloading.lock().await;
        let worker = self.clone();
        let outcome = tokio::task::spawn_blocking(move || worker.replace()).await;
        let outcome = outcome.unwrap_or_else(|mistake| {
            let message = format!("the reload ended by a mistake of ours: {mistake}");
            Err(Report { errors: vec![Problem::in_file("", message, "")], ..Report::default() })
        });
        match outcome {
            Ok((change, watched)) => {
                self.workshop.tools.metrics.reloaded(change);
                if change == Reload::Applied {
                    self.follow(&watched);
                }
                Ok(self.config().routes.len())
            }
            Err(report) => {
                self.workshop.tools.metrics.reloaded(Reload::Failed);
                let lines: Vec<String> = report.errors.iter().map(Problem::to_string).collect();
                log::error!("The configuration was not applied, the old one stays");
                lines.iter().for_each(|line| log::error!("{line}"));
                Err(lines.join("\n"))
            }
        }
    }

    /// The blocking part of a reload: files, compilation, swap.
    fn replace(&self) -> Result<(Reload, Watched), Report> {
        let mut examined = config::examine(&self.source);
        examined.errors.extend(self.lost_folder(&examined.loaded.watched));
        let old = self.config();
        // Read before what is compiled from it: what changes in between is found changed the next time.
        let read = material::digest(&examined.loaded.config);
        let same = *old == examined.loaded.config && read == *lock(&self.material);
        if examined.errors.is_empty() && same && !self.certificates_changed(&old) {
            log::info!("The configuration is unchanged");
            // The file may have been moved away for rotation.
            self.log.reconfigure(&log_settings(&old.gateway));
            return Ok((Reload::Unchanged, examined.loaded.watched));
        }
        let built = build(examined, &self.workshop);
        if built.is_err() {
            self.workshop.upstreams.sweep();
        }
        let (snapshot, Loaded { config, warnings, watched }) = built?;
        for key in needs_restart(&old, &config) {
            log::warn!("{key} changed: this takes effect with `goma upgrade` or a restart");
        }
        self.log.reconfigure(&log_settings(&config.gateway));
        warn(&warnings);
        self.live.store(Arc::new(snapshot));
        self.certify();
        *lock(&self.config) = Arc::new(config);
        *lock(&self.material) = read;
        self.count_configuration();
        self.workshop.upstreams.sweep();
        self.workshop.tools.metrics.sweep(self.live.load().names());
        log::info!(routes = self.live.load().routes.len(); "The configuration was applied");
        Ok((Reload::Applied, watched))
    }

    /// Puts the certificates of the snapshot in force, for connections to come.
    fn certify(&self) {
        let table = self.live.load().tls.clone();
        self.metrics().certificates(table.certificates());
        if self.workshop.certificates.store(table) {
            log::info!("Certificates and TLS settings are in force");
        }
    }

    /// Whether files that the configuration names say something else than what is in force. What is wrong with them is told by
    /// what follows.
    fn certificates_changed(&self, config: &Config) -> bool {
        let keeper = &self.workshop.certificates;
        let mut report = Report::default();
        let read = secure::table(config, &self.workshop.env, keeper, &mut report);
        let Some(now) = keeper.table() else { return true };
        let changed = read.is_none_or(|read| !read.is_like(&now));
        if !changed {
            warn(&report.warnings);
        }
        changed
    }

    /// A folder of extra files that was there and is gone: at start that is a warning, but applying it now would silently
    /// drop its routes.
    fn lost_folder(&self, watched: &Watched) -> Option<Problem> {
        let extra = watched.extra.as_ref()?;
        if extra.directory.is_dir() {
            self.had_extra.store(true, Ordering::Release);
            return None;
        }
        let was_there = self.had_extra.load(Ordering::Acquire);
        let gone = format!("the folder {} is gone", extra.directory.display());
        was_there.then(|| Problem::in_file("", gone, "bring it back, or remove `gateway.extraConfig`"))
    }

    fn count_configuration(&self) {
        let config = self.config();
        self.workshop.tools.metrics.visitors().present_for(config.gateway.monitoring.visitor_ttl);
        self.workshop.tools.metrics.loaded(config.routes.len(), config.middlewares.len());
    }

    /// Watches what the configuration asks to watch; a watch that is already right stays.
    fn follow(self: &Arc<Self>, watched: &Watched) {
        let mut watch = lock(&self.watch);
        let mut paths = paths(watched);
        paths.extend(certificate_paths(&self.config(), &self.workshop.env));
        if watch.as_ref().is_some_and(|(same, _)| *same == paths) {
            return;
        }
        *watch = None;
        if paths.is_empty() {
            return;
        }
        match Watch::start(paths.clone()) {
            Ok((started, mut changes)) => {
                *watch = Some((paths, started));
                let process = Arc::downgrade(self);
                tokio::spawn(async move {
                    while changes.recv().await.is_some() {
                        let Some(process) = process.upgrade() else { break };
                        let _ = process.reload().await;
                    }
                });
            }
            Err(error) => log::error!("Cannot watch the configuration directories: {error}"),
        }
    }
}

impl Control for Arc<Process> {
    fn ready(&self) -> bool {
        self.bound.load(Ordering::Acquire) && !self.stopping.load(Ordering::Acquire)
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn reload(&self) -> BoxFuture<'_, Result<usize, String>> {
        Process::reload(self).boxed()
    }
}

/// The folders whose changes are to reload.
fn paths(watched: &Watched) -> Vec<provider::Watched> {
    let tree = |folder: &Option<config::Watch>, endings| {
        let folder = folder.as_ref().filter(|folder| folder.watch)?;
        Some(provider::Watched::tree(folder.directory.clone(), endings))
    };
    let extra = tree(&watched.extra, &["yml", "yaml"]);
    let files = tree(&watched.provider, &["yml", "yaml", "json"]);
    extra.into_iter().chain(files).collect()
}

/// Files of certificates, keys and authorities; they are watched whether or not folders of configuration are.
fn certificate_paths(config: &Config, env: &Env) -> Vec<provider::Watched> {
    let files = secure::files(config, env).into_iter().chain(material::files(config)).map(provider::Watched::file);
    let folder = secure::folder(config).map(|path| provider::Watched {
        path,
        depth: provider::Depth::Flat,
        extensions: &["crt", "cert", "pem", "key", "ocsp"],
    });
    files.chain(folder).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Warnings at the start go to the terminal when the log would not show them: the default level is `error`.
fn told(problems: &[Problem]) {
    warn(problems);
    if !log::log_enabled!(log::Level::Warn) {
        problems.iter().for_each(|problem| eprintln!("{problem}"));
    }
}

fn warn(problems: &[Problem]) {
    problems.iter().for_each(|problem| log::warn!("{problem}"));
}

/// The log as the configuration asks for it.
pub fn log_settings(gateway: &Gateway) -> LogSettings {
    let log = &gateway.log;
    LogSettings {
        level: match log.level {
            Level::Trace => log::LevelFilter::Trace,
            Level::Debug => log::LevelFilter::Debug,
            Level::Info => log::LevelFilter::Info,
            Level::Warn => log::LevelFilter::Warn,
            Level::Error => log::LevelFilter::Error,
            Level::Off => log::LevelFilter::Off,
        },
        format: match log.format {
            Format::Text => logging::Format::Text,
            Format::Json => logging::Format::Json,
        },
        file: (!log.file_path.is_empty()).then(|| FileSettings {
            path: log.file_path.clone().into(),
            max_size_mb: log.max_size_mb.into(),
            max_backups: log.max_backups as usize,
            max_age_days: log.max_age_days,
        }),
    }
}

/// Keeps gauges and country databases up to date.
pub async fn tick(process: Arc<Process>, points: Vec<(&'static str, Arc<Count>)>) {
    let gauge = |(name, count): (&'static str, Arc<Count>)| (process.metrics().connections(name), count);
    let points: Vec<_> = points.into_iter().map(gauge).collect();
    let mut every = tokio::time::interval(Duration::from_secs(1));
    let mut looking: Option<JoinHandle<()>> = None;
    loop {
        every.tick().await;
        for (connections, count) in &points {
            connections.set(i64::try_from(count.open()).unwrap_or(i64::MAX));
        }
        process.metrics().log_dropped(process.log.dropped());
        let geo = process.workshop.tools.geo.clone();
        let limits = process.workshop.tools.limits.clone();
        if looking.as_ref().is_none_or(JoinHandle::is_finished) {
            looking = Some(tokio::task::spawn_blocking(move || {
                limits.sweep();
                geo.refresh();
            }));
        }
    }
}
