//! A new configuration is in force at once and as a whole, or not at all; nobody on the wire notices.

use crate::world::*;

const ONE: &str = "- {name: one, path: /, target: ORIGIN/one}";
const TWO: &str = "- {name: two, path: /, target: ORIGIN/two}";
/// An unknown middleware kind: refused only after everything else was understood.
const BROKEN: &str = "- {name: three, path: /, target: ORIGIN/three, middlewares: [nowhere]}";

async fn goes_to(gateway: &Gateway, origin: &Origin) -> String {
    gateway.get("/").await;
    origin.last().target.trim_matches('/').to_owned()
}

#[tokio::test]
async fn sighup_brings_the_new_file_into_force() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ONE).await;
    assert_eq!(goes_to(&gateway, &origin).await, "one");
    assert_eq!(gateway.reload_routes(TWO).await, Applied::New);
    assert_eq!(goes_to(&gateway, &origin).await, "two");
    assert_eq!(gateway.reload().await, Applied::Same, "the same again is no change");
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_why() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ONE).await;
    for (about, text, named) in [
        ("an undefined middleware", document("", BROKEN, ""), "nowhere"),
        ("no YAML", "gateway: [".to_owned(), "goma.yml"),
        ("two routes of one name", document("", &format!("{ONE}\n{ONE}"), ""), "one"),
        ("a bad host", document("", "- {name: x, path: /, hosts: ['a.*.b'], target: ORIGIN}", ""), "a.*.b"),
    ] {
        assert_eq!(gateway.reload_with(&text).await, Applied::Old, "{about}");
        assert_eq!(goes_to(&gateway, &origin).await, "one", "{about}");
        gateway.logs(named).await;
    }
    std::fs::remove_file(gateway.file("goma.yml")).expect("a file");
    assert_eq!(gateway.reload().await, Applied::Old, "no file");
    assert_eq!(goes_to(&gateway, &origin).await, "one", "no file");
    assert_eq!(gateway.reload_routes(TWO).await, Applied::New, "and it recovers");
}

#[tokio::test]
async fn the_reload_endpoint_asks_for_its_token() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .gateway("reload: {enabled: true, token: t0ken}\nextraConfig: {directory: FOLDER/extra}")
        .routes(ONE)
        .file("extra/a.yml", "routes: []\n")
        .await;
    let ask = |authorization: &str| gateway.post("/gateway/reload").header("Authorization", authorization);

    for wrong in ["", "Bearer wrong", "t0ken", "Basic t0ken", "Bearer t0ken2"] {
        let reply = ask(wrong).await;
        let body = "{\"error\":\"unauthorized\",\"status\":\"error\"}\n";
        assert_eq!((reply.status, reply.text().as_str()), (401, body), "{wrong:?}");
    }
    gateway.write("extra/a.yml", "routes: [{name: extra, path: /extra, target: ORIGIN/extra}]\n");
    let reply = ask("Bearer t0ken").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let body = reply.json();
    assert_eq!((&body["routes"], &body["status"]), (&2.into(), &"ok".into()));
    assert!(body["durationMs"].is_u64() && body.as_object().expect("an object").len() == 3, "{body}");
    gateway.get("/extra").await;
    assert_eq!(origin.last().target, "/extra/extra");

    gateway.write("extra/a.yml", "routes: [{name: one, path: /extra, target: ORIGIN/again}]\n");
    let reply = ask("Bearer t0ken").await;
    assert_eq!((reply.status, &reply.json()["status"]), (500, &"error".into()));
    assert!(reply.json()["error"].as_str().is_some_and(|error| error.contains("one")), "{}", reply.text());
    gateway.get("/extra").await;
    assert_eq!(origin.last().target, "/extra/extra", "the old configuration serves");
    let reply = gateway.get("/gateway/reload").host("zzz").await;
    assert_ne!(reply.status, 401, "only POST reloads");
}

#[tokio::test]
async fn without_a_token_there_is_no_reload_endpoint() {
    let gateway = Gateway::builder().gateway("reload: {enabled: true}").await;
    assert_eq!(gateway.post("/gateway/reload").header("Authorization", "Bearer ").await.status, 404);
    let gateway = Gateway::builder().gateway("reload: {enabled: true}").env("GOMA_RELOAD_TOKEN", "x").await;
    assert_eq!(gateway.post("/gateway/reload").header("Authorization", "Bearer x").await.status, 200);
    let reply = gateway.get("/gateway/reload").await;
    assert_eq!((reply.status, reply.header("Allow")), (405, Some("POST")));
}

#[tokio::test]
async fn the_log_level_and_middlewares_reload_too() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ONE).await;
    let guarded = "- {name: one, path: /, target: ORIGIN/one, middlewares: [m]}";
    let middleware = "- {name: m, type: access, paths: [/], rule: {statusCode: 410}}";
    gateway.reload_with(&document("", guarded, middleware)).await;
    assert_eq!(gateway.get("/").await.status, 410);
    gateway.reload_with(&document("", guarded, &middleware.replace("410", "411"))).await;
    assert_eq!(gateway.get("/").await.status, 411);
}

#[tokio::test]
async fn open_streams_stay_open_across_reloads() {
    let origin = Origin::start().await;
    origin.on("/one/events", Answer::events(&["a", "b", "c"]));
    origin.on("/one/ws", Answer::websocket());
    let gateway = Gateway::before(&origin).routes(ONE).await;
    let mut events = gateway.sse("/events").await;
    let mut socket = gateway.websocket("/ws").await;
    assert_eq!(events.next().await.expect("an event").0, "a");
    socket.echoes("before").await;
    for routes in [TWO, BROKEN, "- {name: other, path: /other, target: ORIGIN}"] {
        gateway.reload_routes(routes).await;
        socket.echoes("between").await;
    }
    for expected in ["b", "c"] {
        origin.release();
        assert_eq!(events.next().await.expect("an event").0, expected);
    }
    assert!(events.next().await.is_none());
    socket.close(1000).await;
    assert_eq!(socket.hear().await, Frame::Close(1000));
}

#[tokio::test]
async fn two_hundred_reloads_under_load_lose_nothing() {
    let (one, two) = (Origin::named("same").await, Origin::named("same").await);
    let gateway = Gateway::builder()
        .word("ONE", &one)
        .word("TWO", &two)
        .env("GOMA_LOG_LEVEL", "off")
        .routes("- {name: r, path: /, target: ONE}")
        .await;
    let load = Load::start(&gateway, 8, "/", "same");
    load.goes_on(50).await;
    for round in 0..200 {
        let target = if round % 4 < 2 { "TWO" } else { "ONE" };
        let applied = match round % 2 {
            0 => gateway.reload_routes(&format!("- {{name: r, path: /, target: {target}}}")).await,
            _ => gateway.reload_with("gateway: {routes: [{name: r, path: /}]").await,
        };
        assert_eq!(applied, if round % 2 == 0 { Applied::New } else { Applied::Old }, "round {round}");
    }
    load.goes_on(50).await;
    load.stop().await.is_clean(&[200]);
    assert!(!one.saw_nothing() && !two.saw_nothing());
}

#[tokio::test]
async fn connections_to_backends_outlive_a_reload() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ONE).await;
    for round in 0..10 {
        assert_eq!(gateway.get("/").await.status, 200);
        let routes =
            format!("- {{name: one, path: /, target: ORIGIN/one}}\n- {{name: r{round}, path: /r, target: ORIGIN}}");
        assert_eq!(gateway.reload_routes(&routes).await, Applied::New);
    }
    assert_eq!(origin.connections(), 1, "the pool of a backend belongs to the backend");
}
