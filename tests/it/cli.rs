//! The command line.

use std::fs;

use crate::world::*;

#[tokio::test]
async fn version_is_four_lines() {
    for arguments in [&["version"][..], &["--version"], &["-v"]] {
        let output = goma(arguments).await;
        assert!(output.succeeded(), "{arguments:?}: {}", output.all());
        assert!(output.stdout.contains(env!("CARGO_PKG_VERSION")), "{arguments:?}: {}", output.all());
    }
    assert_eq!(goma(&["version"]).await.stdout.lines().count(), 4);
}

#[tokio::test]
async fn help_names_every_command() {
    for arguments in [&["help"][..], &["--help"], &["-h"]] {
        let output = goma(arguments).await;
        assert!(output.succeeded(), "{arguments:?}");
        for command in ["server", "config", "version", "healthcheck", "demo", "completion", "help"] {
            assert!(output.stdout.contains(command), "{command} in {}", output.stdout);
        }
    }
    let config = goma(&["config", "--help"]).await.all();
    for command in ["init", "check", "explain"] {
        assert!(config.contains(command), "{command} in {config}");
    }
}

#[tokio::test]
async fn completion_is_written_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = goma(&["completion", shell]).await;
        assert!(output.succeeded() && output.stdout.contains("goma"), "{shell}: {}", output.all());
    }
}

#[tokio::test]
async fn a_mistake_exits_with_1() {
    for arguments in [
        &["nonsense"][..],
        &["config", "nonsense"],
        &["config", "init"],
        &["config", "check"],
        &["config", "check", "-c", "no-such.yml"],
        &["server", "-c", "no-such.yml"],
        &["-c", "no-such.yml"],
        &["server", "--nonsense"],
    ] {
        let output = goma(arguments).await;
        assert_eq!(output.code, Some(1), "{arguments:?}: {}", output.all());
        assert!(!output.all().trim().is_empty(), "{arguments:?} says why");
    }
}

#[tokio::test]
async fn the_sample_that_init_writes_passes_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &'static [&'static str]| goma_in(folder.path(), &[], arguments);
    let first = run(&["config", "init", "-o", "sample.yml"]).await;
    assert!(first.succeeded() && !first.stdout.is_empty(), "{}", first.all());
    let again = run(&["config", "init", "--output", "sample.yml"]).await;
    assert_eq!(again.code, Some(1), "it overwrites nothing: {}", again.all());
    assert!(run(&["config", "init", "-o", "sample.yml", "--force"]).await.succeeded());
    assert_eq!(run(&["config", "init", "-o", "a.yml", "more"]).await.code, Some(1));
    assert_eq!(run(&["config", "init", "-o", "no/such/folder.yml"]).await.code, Some(1));

    let check = run(&["config", "check", "-c", "sample.yml"]).await;
    assert!(check.succeeded(), "{}", check.all());
    assert!(check.all().contains("Routes count=") && check.all().contains("Middlewares count="), "{}", check.all());
}

#[tokio::test]
async fn check_warns_of_unknown_keys_and_strict_refuses_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "version: 2\ngateway:\n  strictSlsh: true\n  routes: []\n";
    fs::write(folder.path().join("goma.yml"), text).expect("a writable file");
    let lax = goma_in(folder.path(), &[], &["config", "check", "-c", "goma.yml"]).await;
    assert!(lax.succeeded(), "{}", lax.all());
    for part in ["goma.yml:3", "strictSlsh", "strictSlash"] {
        assert!(lax.all().contains(part), "{part} in {}", lax.all());
    }
    let strict = goma_in(folder.path(), &[], &["config", "check", "--strict", "-c", "goma.yml"]).await;
    assert_eq!(strict.code, Some(1), "{}", strict.all());
}

#[tokio::test]
async fn check_warns_of_what_is_written_in_vain() {
    let rows = [
        (
            "routes: [{name: all, path: /, target: 'http://a'}, {name: api, path: /api, priority: 1, target: 'http://b'}]",
            "gateway.routes[1].priority: route `all` (`/`, priority 0) comes first and takes every request",
        ),
        (
            "routes: [{name: a, path: /a/b, priority: 5, hosts: [A.x], target: 'http://a'}, \
             {name: b, path: /a, priority: -1, hosts: [b.x, a.x], target: 'http://b'}]",
            "gateway.routes[0].priority: route `b` (`/a`, priority -1) comes first",
        ),
        (
            "redis: {addr: 'a:1', password: '${NO_SUCH_VARIABLE}'}\n  routes: [{name: a, path: /, target: 'http://a'}]",
            "goma.yml:2: ${NO_SUCH_VARIABLE} stays as it is",
        ),
        (
            "routes: [{name: a, path: '/${NO_SUCH_VARIABLE:-x}'}]",
            "goma.yml:2: ${NO_SUCH_VARIABLE…} stays as it is: variables have no defaults",
        ),
        (
            "monitoring: {includeRouteHealthErrors: true}\n  routes: [{name: a, path: /, target: 'http://a'}]",
            "gateway.monitoring.includeRouteHealthErrors: hides the errors",
        ),
        (
            "routes: [{name: a, path: /, target: 'http://a', methods: ['GET ', '']}]",
            "gateway.routes[0].methods[0]: \"GET \" holds a space, so that it matches no request; write GET",
        ),
    ];
    for (gateway, warning) in rows {
        let told = told(gateway).await;
        assert!(told.contains(warning), "{gateway}: {told}");
    }
    for hosts in ["[b.x]", "['*.x']"] {
        let routes = format!(
            "routes: [{{name: all, path: /, hosts: {hosts}, target: 'http://a'}}, \
             {{name: api, path: /api, priority: 1, hosts: [a.x], target: 'http://b'}}]"
        );
        assert!(!told(&routes).await.contains("comes first"), "{hosts}");
    }
}

/// What `config check` says of a gateway.
async fn told(gateway: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("goma.yml"), format!("gateway:\n  {gateway}\n")).expect("a writable file");
    goma_in(folder.path(), &[], &["config", "check", "-c", "goma.yml"]).await.all()
}

#[tokio::test]
async fn check_reads_the_extra_files_too() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("extra")).expect("a folder");
    fs::write(folder.path().join("extra/a.yml"), "routes: [{name: a, path: /}]\n").expect("a writable file");
    fs::write(folder.path().join("goma.yml"), "gateway: {extraConfig: {directory: extra}}\n").expect("a writable file");
    let output = goma_in(folder.path(), &[], &["config", "check", "-c", "goma.yml"]).await;
    assert_eq!(output.code, Some(1), "{}", output.all());
    assert!(output.all().contains("a.yml:1"), "{}", output.all());
}

#[tokio::test]
async fn healthcheck_tells_a_ready_gateway_from_none() {
    let gateway = Gateway::with("gateway: {routes: []}").await;
    let config = gateway.file("goma.yml").display().to_string();
    let address = format!("127.0.0.1:{}", gateway.port());
    let env = [("GOMA_CONFIG_FILE", config.as_str()), ("GOMA_ENTRYPOINT_WEB_ADDRESS", address.as_str())];
    let run = || goma_in(gateway.config_dir(), &env, &["healthcheck"]);
    let ready = run().await;
    assert_eq!(ready.code, Some(0), "{}", ready.all());
    gateway.sigterm();
    gateway.wait_exit().await;
    assert_eq!(run().await.code, Some(1));
}

#[tokio::test]
async fn a_file_that_broke_since_says_nothing_of_the_gateway_that_runs() {
    let gateway = Gateway::with("gateway: {routes: []}").await;
    gateway.write("goma.yml", "gateway: {routes: [{name: broken}]}");
    let config = gateway.file("goma.yml").display().to_string();
    let address = format!("127.0.0.1:{}", gateway.port());
    let env = [("GOMA_CONFIG_FILE", config.as_str()), ("GOMA_ENTRYPOINT_WEB_ADDRESS", address.as_str())];
    let output = goma_in(gateway.config_dir(), &env, &["healthcheck"]).await;
    assert_eq!(output.code, Some(0), "{}", output.all());
}

#[tokio::test]
async fn the_file_may_be_named_before_the_command_server_and_before_no_other() {
    let output = goma(&["-c", "/nope.yml", "server"]).await;
    assert!(output.code == Some(1) && output.stderr.contains("/nope.yml: cannot be read"), "{}", output.all());
    let output = goma(&["-c", "/nope.yml", "version"]).await;
    assert!(output.code == Some(1) && output.stderr.contains("--config"), "{}", output.all());
}

#[tokio::test]
async fn the_configuration_is_found_where_the_environment_says() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .config("gateway: {log: {level: 'off'}, routes: [{name: r, path: /, target: ORIGIN, hosts: ['${NAME}']}]}")
        .env("NAME", "named.test")
        .await;
    assert_eq!(gateway.get("/").host("named.test").await.status, 200, "variables are expanded");
    assert_eq!(gateway.get("/").host("other.test").await.status, 404);
}

#[tokio::test]
async fn explain_tells_the_way_of_a_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "gateway:
  routes:
    - {name: shop, path: /shop, hosts: [www.test], rewrite: /v2, target: 'http://shop.internal:8080', middlewares: [guard, prefix]}
    - {name: other, path: /shop, hosts: [other.test], target: 'http://other.internal:8080'}
middlewares:
  - {name: guard, type: access, paths: [/admin]}
  - {name: prefix, type: addPrefix, rule: {prefix: /p}}
";
    fs::write(folder.path().join("goma.yml"), text).expect("a writable file");
    let explain = |arguments: &[&str]| {
        let arguments: Vec<String> =
            ["config", "explain", "-c", "goma.yml"].iter().chain(arguments).map(ToString::to_string).collect();
        let folder = folder.path().to_owned();
        async move { goma_in(&folder, &[], &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let way = explain(&["GET", "http://www.test/shop/x?y=1"]).await;
    assert!(way.succeeded(), "{}", way.all());
    for part in ["shop", "guard", "prefix", "other", "shop.internal:8080"] {
        assert!(way.stdout.contains(part), "{part} in {}", way.stdout);
    }
    assert!(way.stdout.find("guard") < way.stdout.find("prefix"), "middlewares in their order: {}", way.stdout);
    let nowhere = explain(&["GET", "http://third.test/"]).await;
    assert!(nowhere.stdout.contains("404"), "{}", nowhere.all());
    let host = explain(&["GET", "/shop", "-H", "Host: other.test", "--from", "10.0.0.1"]).await;
    assert!(host.stdout.contains("other.internal:8080"), "{}", host.all());
}
