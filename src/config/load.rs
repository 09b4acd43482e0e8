//! From files and environment to a [`Config`], or to everything that is wrong.
//!
//! Routes and middlewares of the main file come first, then those of the extra files, then those of the file provider;
//! names are unique across all of them. Files are all or nothing: one that is broken refuses the whole.

use std::path::{Path, PathBuf};

use super::document::{Config, Loaded, Main, Part, Source, Watch, Watched};
use super::place::Place;
use super::problem::{Problem, Report};
use super::reader::{Reader, Text};
use super::{check, env, folder, sample, unsupported};

/// The file that is used, and made, when none was named.
pub const DEFAULT_FILE: &str = "/etc/goma/goma.yml";

/// Reads a configuration.
///
/// Only when no file was named at all and [`DEFAULT_FILE`] is not there, it is made from the sample.
///
/// # Errors
/// Everything that is wrong, with the warnings beside it.
pub fn load(source: &Source) -> Result<Loaded, Report> {
    let Examined { loaded, errors } = examine(source);
    if errors.is_empty() { Ok(loaded) } else { Err(Report { errors, warnings: loaded.warnings }) }
}

/// Reads a configuration as [`load`] does, and gives what could be read of it even when it is wrong, so that the next step
/// can find its own errors in the same run.
pub fn examine(source: &Source) -> Examined {
    let mut reader = Reader::new(&source.env);
    let (mut config, mut watched) = (Config::default(), Watched::default());
    if let Some(path) = reader.main_path(source) {
        config = reader.main(&path).unwrap_or_default();
        watched = reader.beside(&mut config, &path);
        if !reader.files.is_empty() {
            check::check(&mut config, &mut reader.report);
            unsupported::check(&config, &mut reader.report);
        }
    }
    let Report { errors, warnings } = reader.finish();
    Examined { loaded: Loaded { config, warnings, watched }, errors }
}

/// What could be read of a configuration, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Examined {
    /// The configuration; not to be used when there are errors.
    pub loaded: Loaded,
    /// Each refuses the configuration.
    pub errors: Vec<Problem>,
}

impl From<Loaded> for Examined {
    fn from(loaded: Loaded) -> Examined {
        Examined { loaded, errors: Vec::new() }
    }
}

impl Reader<'_> {
    /// The main file, made from the sample where none was named and none is there.
    fn main_path(&mut self, source: &Source) -> Option<PathBuf> {
        let named = self.env.get("GOMA_CONFIG_FILE").filter(|path| !path.is_empty());
        if let Some(path) = source.path.clone().or_else(|| named.map(PathBuf::from)) {
            return Some(path);
        }
        let path = PathBuf::from(DEFAULT_FILE);
        if path.exists() {
            return Some(path);
        }
        match sample::write(&path, sample::Existing::Keep) {
            Ok(()) => {
                let message = "was not there and has been made from the sample";
                self.report.add(Problem::in_file(DEFAULT_FILE, message, "edit it").as_warning());
                Some(path)
            }
            Err(error) => {
                let message = format!("is not there and cannot be made: {error}");
                self.report.add(Problem::in_file(DEFAULT_FILE, message, "name a file with -c"));
                None
            }
        }
    }

    fn main(&mut self, path: &Path) -> Option<Config> {
        let document = self.read(path, Text::Expanded)?;
        let at = Place::root(&document);
        let main: Main = self.decode(&document.root, &at)?;
        self.misplaced(&at, "routes", "is not read at the top of the main file", "move it to gateway.routes");
        let mut config = Config { version: main.version, at, ..Config::default() };
        let place = config.at.child("gateway");
        let gateway = document.root.child("gateway");
        config.gateway = gateway.and_then(|node| self.decode(node, &place)).unwrap_or_default();
        config.gateway.transport = std::mem::take(&mut config.gateway.networking.transport);
        config.gateway.dns_cache = std::mem::take(&mut config.gateway.networking.dns_cache);
        if let Some(delay) = config.gateway.shutdown_delay.take() {
            config.gateway.shutdown.delay = delay;
        }
        config.gateway.at = place.clone();
        config.cert_manager = main.cert_manager;
        config.cert_manager.settle();
        config.plugins = main.plugins;
        self.report.extend(env::apply(&mut config.gateway, &mut config.cert_manager, self.env));
        self.routes(gateway, &place, &mut config.routes);
        self.middlewares(&document.root, &config.at, &mut config.middlewares);
        Some(config)
    }

    /// Appends what stands in folders beside the main file.
    fn beside(&mut self, config: &mut Config, main: &Path) -> Watched {
        let mut watched = Watched { main: main.to_owned(), ..Watched::default() };
        let extra = &config.gateway.extra_config;
        if !extra.directory.is_empty() {
            let watch = Watch { directory: PathBuf::from(&extra.directory), watch: extra.watch };
            let at = config.gateway.at.child("extraConfig").child("directory");
            self.folder(&watch.directory, &["yml", "yaml"], Text::Expanded, main, config).unwrap_or_else(|error| {
                let message = format!("{} cannot be read: {error}", watch.directory.display());
                self.report.add(at.warning(message, "make the folder, or remove this key"));
            });
            watched.extra = Some(watch);
        }
        let provider = config.gateway.providers.file.clone().filter(|provider| provider.enabled);
        if let Some(provider) = provider {
            let watch = Watch { directory: PathBuf::from(&provider.directory), watch: provider.watch };
            let at = config.gateway.at.child("providers").child("file").child("directory");
            if provider.directory.is_empty() {
                self.report.add(at.error("is missing", "name the folder, or set enabled: false"));
                return watched;
            }
            let kinds = ["yml", "yaml", "json"];
            self.folder(&watch.directory, &kinds, Text::AsItIs, main, config).unwrap_or_else(|error| {
                let message = format!("{} cannot be read: {error}", watch.directory.display());
                self.report.add(at.error(message, "make the folder, or set enabled: false"));
            });
            watched.provider = Some(watch);
        }
        watched
    }

    fn folder(
        &mut self,
        directory: &Path,
        kinds: &[&str],
        text: Text,
        main: &Path,
        config: &mut Config,
    ) -> std::io::Result<()> {
        let mut files = Vec::new();
        folder::files(directory, kinds, 0, &mut files)?;
        let main = main.canonicalize().ok();
        // The main file may live in the same folder; its middlewares must not count twice.
        files.retain(|file| main.is_none() || file.canonicalize().ok() != main);
        for file in files {
            let Some(document) = self.read(&file, text) else { continue };
            let at = Place::root(&document);
            let _known_keys: Option<Part> = self.decode(&document.root, &at);
            for section in ["gateway", "certManager", "plugins"] {
                self.misplaced(&at, section, "is read in the main file only", "move it there");
            }
            self.routes(Some(&document.root), &at, &mut config.routes);
            self.middlewares(&document.root, &at, &mut config.middlewares);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::super::Env;
    use super::super::secret::PASSPHRASE;
    use super::*;
    use crate::config::testing::{folder, lines, load_from};

    fn errors(files: &[(&str, &str)]) -> Vec<String> {
        let folder = folder(files);
        lines(&load_from(&folder, &[]).expect_err("refused").errors, &folder)
    }

    const ROUTE: &str = "{name: a, path: /, target: http://a}";

    #[test]
    fn main_extra_and_provider_files_are_appended_in_this_order() {
        let folder = folder(&[
            (
                "goma.yml",
                "version: 2\ngateway:\n  extraConfig: {directory: DIR/extra, watch: true}\n  providers:\n    \
                 file: {enabled: true, directory: DIR/provider}\n  routes:\n  - {name: m, path: /m, target: 'http://m'}\n",
            ),
            ("extra/b.yml", "routes:\n- {name: b, path: /b, target: 'http://b'}\n"),
            ("extra/a/x.yaml", "routes:\n- {name: ax, path: /ax, target: 'http://${HOST}'}\n"),
            ("extra/.hidden/x.yaml", "not: [valid"),
            ("extra/notes.txt", "not: [valid"),
            (
                "provider/p.json",
                r#"{"version": "1", "metadata": {"x": "y"}, "routes": [{"name": "p", "path": "/{HOST}", "target": "http://p"}]}"#,
            ),
        ]);
        let loaded = load_from(&folder, &[("HOST", "backend")]).unwrap();
        let names: Vec<_> = loaded.config.routes.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(names, ["m", "ax", "b", "p"]);
        assert_eq!(loaded.config.version, "2");
        assert_eq!(loaded.config.routes[1].target.as_deref(), Some("http://backend"), "extra files are expanded");
        assert_eq!(loaded.config.routes[3].path, "/{HOST}", "provider documents are not");
        assert_eq!(loaded.watched.extra.map(|watch| watch.watch), Some(true));
        assert_eq!(loaded.watched.provider.map(|watch| watch.watch), Some(false));
        assert_eq!(lines(&loaded.warnings, &folder), [""; 0]);
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("goma.yml");
        let named = Source { path: Some(missing.clone()), env: Env::default() };
        let by_variable =
            Source { path: None, env: [("GOMA_CONFIG_FILE", missing.to_str().unwrap())].into_iter().collect() };
        for source in [named, by_variable] {
            let report = load(&source).unwrap_err();
            let line = "error: goma.yml: cannot be read: No such file or directory (os error 2); \
                        check the path and who may read it";
            assert_eq!(lines(&report.errors, &folder), [line]);
        }
    }

    #[test]
    fn names_are_unique_across_all_files() {
        let main = format!(
            "gateway:\n  extraConfig: {{directory: DIR/extra}}\n  routes:\n  - {}\n",
            ROUTE.replace("http://a", "'http://a'")
        );
        let found = errors(&[
            ("goma.yml", &main),
            (
                "extra/x.yml",
                "routes:\n- {name: a, path: /x, target: 'http://x'}\nmiddlewares:\n- {name: m, type: access}\n- {name: m, type: access}\n",
            ),
        ]);
        assert_eq!(
            found,
            [
                "error: extra/x.yml:2: routes[0].name: there is another route \"a\" (goma.yml:4); rename one of them",
                "error: extra/x.yml:5: middlewares[1].name: there is another middleware \"m\" (extra/x.yml:4); rename one of them",
            ]
        );
    }

    #[test]
    fn a_main_file_in_the_folder_of_extra_files_counts_once() {
        let main = "gateway:\n  extraConfig: {directory: DIR}\n  routes: [{name: a, path: /, target: 'http://a'}]\n\
                    middlewares: [{name: m, type: access}]\n";
        let folder = folder(&[("goma.yml", main), ("x.yml", "middlewares: [{name: n, type: access}]\n")]);
        let loaded = load_from(&folder, &[]).unwrap();
        assert_eq!(loaded.config.middlewares.len(), 2);
        assert_eq!(lines(&loaded.warnings, &folder), [""; 0]);
    }

    #[test]
    fn a_section_in_the_wrong_kind_of_file_is_named() {
        let main = "gateway:\n  extraConfig: {directory: DIR/extra}\n  routes: [{name: a, path: /, target: 'http://a'}]\n\
                    routes: [{name: b, path: /b, target: 'http://b'}]\n";
        let folder = folder(&[("goma.yml", main), ("extra/x.yml", "gateway: {routes: []}\n")]);
        let loaded = load_from(&folder, &[]).unwrap();
        assert_eq!(
            lines(&loaded.warnings, &folder),
            [
                "warning: goma.yml:4: routes: is not read at the top of the main file; move it to gateway.routes",
                "warning: extra/x.yml:1: gateway: is read in the main file only; move it there",
            ]
        );
    }

    #[test]
    fn a_broken_extra_file_refuses_the_whole_and_a_missing_folder_does_not() {
        let main =
            "gateway:\n  extraConfig: {directory: DIR/extra}\n  routes: [{name: a, path: /, target: 'http://a'}]\n";
        let found = errors(&[("goma.yml", main), ("extra/x.yml", "routes: [\n")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("error: extra/x.yml:2: routes: is not valid YAML: "), "{found:?}");
        let folder = folder(&[("goma.yml", main)]);
        let warnings = load_from(&folder, &[]).unwrap().warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].to_string().contains("gateway.extraConfig.directory: "), "{warnings:?}");
    }

    #[test]
    fn defaults_stand_before_a_routes_own_middlewares() {
        let yaml = "\
middlewares: [{name: x, type: access}, {name: y, type: access}, {name: z, type: access}]
gateway:
  defaults: {middlewares: [x, y, x]}
  routes:
  - {name: a, path: /a, target: 'http://a', middlewares: [z]}
  - {name: b, path: /b, target: 'http://b', middlewares: [z, x]}
  - {name: c, path: /c, target: 'http://c'}
";
        let folder = folder(&[("goma.yml", yaml)]);
        let config = load_from(&folder, &[]).unwrap().config;
        let chains: Vec<_> = config.routes.iter().map(|route| route.middlewares.join(" ")).collect();
        assert_eq!(chains, ["x y z", "y z x", "x y"]);
    }

    #[test]
    fn sections_that_are_present_keep_their_true_defaults() {
        let yaml = "\
gateway:
  monitoring: {enableMetrics: true}
  networking: {transport: {maxIdleConns: 1}, dnsCache: {ttl: 0}}
  routes:
  - name: a
    path: /
    target: http://a
    security: {tls: {insecureSkipVerify: true}}
    cors: {origins: []}
    healthCheck: {path: /h, interval: 1500ms}
    maintenance: {enabled: true}
    hosts: [' ', a.example.com]
";
        let folder = folder(&[("goma.yml", yaml)]);
        let config = load_from(&folder, &[]).unwrap().config;
        let gateway = &config.gateway;
        assert!(gateway.strict_slash && gateway.monitoring.enable_liveness && gateway.monitoring.enable_readiness);
        assert!(gateway.transport.force_attempt_http2);
        assert_eq!((gateway.transport.max_idle_conns, gateway.transport.max_conns_per_host), (1, 256));
        assert_eq!(gateway.dns_cache.ttl, Duration::from_secs(300));
        let route = &config.routes[0];
        assert!(route.enabled && route.cors.enabled && route.security.forward_host_headers);
        assert!(route.security.tls.insecure_skip_verify);
        assert_eq!(route.hosts, ["a.example.com"]);
        assert_eq!((route.maintenance.status, route.maintenance.enabled), (503, true));
        let check = route.health_check.as_ref().unwrap();
        assert_eq!((check.interval, check.timeout), (Duration::from_secs(1), Duration::from_secs(5)));
    }

    #[test]
    fn an_older_file_means_what_it_meant() {
        let yaml = "\
version: 1
gateway:
  readTimeout: 5
  routes:
  - {name: a, path: /a, destination: 'http://a', disableHostForwarding: true, disabled: true}
  - {name: b, path: /b, backends: ['http://b1', 'http://b2'], insecureSkipVerify: true}
";
        let folder = folder(&[("goma.yml", yaml)]);
        let Loaded { config, warnings, .. } = load_from(&folder, &[]).unwrap();
        assert_eq!(config.gateway.timeouts.read, Some(Duration::from_secs(5)));
        let (a, b) = (&config.routes[0], &config.routes[1]);
        assert_eq!(a.target.as_deref(), Some("http://a"));
        assert!(!a.enabled && !a.security.forward_host_headers);
        assert_eq!(b.backends.iter().map(|backend| &*backend.endpoint).collect::<Vec<_>>(), ["http://b1", "http://b2"]);
        assert!(b.security.tls.insecure_skip_verify);
        assert_eq!(warnings.len(), 7, "{warnings:?}");
    }

    #[test]
    fn a_rule_is_decoded_by_its_kind_and_says_where_it_is_wrong() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Access {
            status_code: u16,
        }
        let yaml = "middlewares:\n- {name: a, type: access, rule: {statuscode: '404'}}\n- {name: b, type: access}\n\
                    - name: c\n  type: access\n  rule:\n    statusCode: many\n- {name: d, type: access, rule: {statusCod: 1}}\n\
                    gateway: {routes: []}\n";
        let folder = folder(&[("goma.yml", yaml)]);
        let loaded = load_from(&folder, &[(PASSPHRASE, "x")]).unwrap();
        let rule = |index: usize| loaded.config.middlewares[index].rule.decode::<Access>(true);
        assert_eq!(rule(0).unwrap().0.status_code, 404);
        assert_eq!(rule(1).unwrap().0.status_code, 0);
        let wrong = "error: goma.yml:7: middlewares[2].rule.statusCode: expected a whole number, found \"many\"";
        assert_eq!(lines(&rule(2).unwrap_err(), &folder), [wrong]);
        let typo = "error: goma.yml:8: middlewares[3].rule.statusCod: is not a known key; did you mean \"statusCode\"?";
        assert_eq!(lines(&rule(3).unwrap_err(), &folder), [typo]);
    }

    #[test]
    fn the_same_text_is_the_same_configuration() {
        let yaml = "middlewares: [{name: a, type: access, rule: {statusCode: 404}}]\ngateway: {routes: []}\n";
        let one = load_from(&folder(&[("goma.yml", yaml)]), &[]).unwrap().config;
        let moved = load_from(&folder(&[("goma.yml", &format!("# moved\n\n{yaml}"))]), &[]).unwrap().config;
        let other = load_from(&folder(&[("goma.yml", &yaml.replace("404", "403"))]), &[]).unwrap().config;
        assert_eq!(one, moved);
        assert_ne!(one, other);
    }
}
