//! `userAgentBlock` and `botDetection`: who gets in by what the client says of itself.

use crate::world::*;

const CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
const GOOGLE: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
const GPT: &str =
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; GPTBot/1.2; +https://openai.com/gptbot";
const REFUSAL: &str = "Automated clients are not allowed here\n";

async fn with(origin: &Origin, middleware: &str) -> Gateway {
    Gateway::before(origin)
        .env("GOMA_LOG_LEVEL", "info")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, {middleware}}}"))
        .await
}

#[tokio::test]
async fn row_77_a_text_in_the_user_agent_keeps_out_in_any_case() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: userAgentBlock, rule: {userAgents: [Googlebot, 'curl/']}").await;
    for (agent, status) in
        [("x Googlebot/2", 403), ("x googlebot/2", 403), ("CURL/8", 403), ("curl 8", 200), ("", 200), (CHROME, 200)]
    {
        origin.forget();
        let reply = gateway.get("/").header("User-Agent", agent).await;
        assert_eq!(reply.status, status, "{agent}");
        assert_eq!(origin.saw_nothing(), status == 403, "{agent}");
    }
    assert_eq!(gateway.get("/").await.status, 200, "no user agent at all");
    let reply = gateway.get("/").header("User-Agent", "curl/8").accept("application/json").await;
    assert_eq!(reply.text(), "{\"success\":false,\"statusCode\":403,\"error\":\"User agent not allowed\"}\n");
    let h2 = gateway.h2().await;
    let request = h2.request("GET", "/").header("user-agent", "googlebot").body(()).expect("a request");
    let reply = h2.call(request, true).await.finish().await.expect("an answer");
    assert_eq!((reply.status, reply.text().as_str()), (403, "User agent not allowed\n"));
    assert!(gateway.logs("denied:userAgentBlock").await.contains("user agent: "));
}

#[tokio::test]
async fn bots_stay_out_and_browsers_get_in() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: botDetection").await;
    for agent in [GOOGLE, GPT, "curl/8.5.0", "python-requests/2.32", "SomethingNewBot/0.1", "acme-billing/3.1"] {
        origin.forget();
        let reply = gateway.get("/").header("User-Agent", agent).await;
        assert_eq!((reply.status, reply.text().as_str()), (403, REFUSAL), "{agent}");
        assert!(origin.saw_nothing(), "{agent}");
    }
    assert_eq!(gateway.get("/").header("User-Agent", CHROME).await.status, 200);
    assert_eq!(gateway.get("/").await.status, 200, "who says nothing");
    assert!(gateway.logs("bot: Googlebot").await.contains("denied:botDetection"));
    gateway.counts(r#"goma_edge_bots_total{action="blocked",category="search-engine",name="m"} 1"#).await;
    gateway.counts(r#"goma_edge_bots_total{action="blocked",category="http-library",name="m"} 2"#).await;
    gateway.counts(r#"goma_edge_bots_total{action="blocked",category="unknown",name="m"} 2"#).await;
}

#[tokio::test]
async fn bots_get_in_or_stay_out_by_name_and_by_category() {
    let rows = [
        ("{allow: [googlebot, Bingbot]}", GOOGLE, 200),
        ("{allow: [googlebot, Bingbot]}", "Googlebot-Image/1.0", 200),
        ("{allow: [googlebot, Bingbot]}", GPT, 403),
        ("{allow: [search-engine]}", GOOGLE, 200),
        ("{allow: [search-engine]}", GPT, 403),
        ("{allow: ['*'], deny: [ai-crawler]}", GOOGLE, 200),
        ("{allow: ['*'], deny: [ai-crawler]}", GPT, 403),
        ("{allow: [acme-billing]}", "acme-billing/3.1", 200),
        ("{deny: [Chrome/140]}", CHROME, 403),
        ("{allow: [Googlebot], deny: [Googlebot-Image]}", "Googlebot-Image/1.0", 403),
        ("{mode: detect}", GPT, 200),
        ("{mode: detect, deny: [GPTBot]}", GPT, 200),
        ("{allowEmptyUserAgent: false}", "", 403),
        ("{allowEmptyUserAgent: false}", CHROME, 200),
    ];
    let origin = Origin::start().await;
    for (rule, agent, status) in rows {
        let gateway = with(&origin, &format!("type: botDetection, rule: {rule}")).await;
        assert_eq!(gateway.get("/").header("User-Agent", agent).await.status, status, "{rule}: {agent}");
    }
}

#[tokio::test]
async fn detected_bots_pass_and_are_told() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: botDetection, rule: {mode: detect}").await;
    assert_eq!(gateway.get("/").header("User-Agent", GPT).header("X-Request-ID", "told").await.status, 200);
    let line = gateway.logs("told").await;
    assert!(line.contains("bot: GPTBot") && line.contains("ok"), "{line}");
    gateway.counts(r#"goma_edge_bots_total{action="detected",category="ai-crawler",name="m"} 1"#).await;
}

#[tokio::test]
async fn bot_detection_counts_on_its_paths_in_whatever_form_they_are_asked_for() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: botDetection, paths: [/shop]").await;
    for (path, status) in [("/shop", 403), ("/shop/x", 403), ("//shop", 403), ("/%73hop", 403), ("/", 200)] {
        assert_eq!(gateway.get(path).header("User-Agent", GPT).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn the_flag_of_a_route_keeps_bots_out_before_its_middlewares() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .routes(
            "- {name: now, path: /now, target: ORIGIN, middlewares: [later], security: {enableBotDetection: true}}
- {name: older, path: /older, target: ORIGIN, enableBotDetection: true}
- {name: open, path: /, target: ORIGIN}",
        )
        .middlewares("- {name: later, type: access, paths: [/now/closed], rule: {statusCode: 410}}")
        .await;
    for (path, agent, status) in [
        ("/now", GPT, 403),
        ("/now/closed", GPT, 403),
        ("/now/closed", CHROME, 410),
        ("/now", CHROME, 200),
        ("/older", GPT, 403),
        ("/", GPT, 200),
    ] {
        assert_eq!(gateway.get(path).header("User-Agent", agent).await.status, status, "{path}: {agent}");
    }
    let h2 = gateway.h2().await;
    let request = h2.request("GET", "/now").header("user-agent", GPT).body(()).expect("a request");
    let reply = h2.call(request, true).await.finish().await.expect("an answer");
    assert_eq!((reply.status, reply.text().as_str()), (403, REFUSAL));
    gateway.counts(r#"goma_edge_bots_total{action="blocked",category="ai-crawler",name="now"} 3"#).await;
    let url = "http://a.test/now";
    let arguments = ["config", "explain", "GET", url, "-H", &format!("User-Agent: {GPT}"), "-c", "goma.yml"];
    let output = goma_in(gateway.config_dir(), &[], &arguments).await;
    assert!(output.stdout.contains("security.enableBotDetection") && output.stdout.contains("403"), "{}", output.all());
}

#[tokio::test]
async fn a_websocket_of_a_bot_is_refused_as_well() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: botDetection").await;
    let request = gateway
        .get("/ws")
        .header("User-Agent", GPT)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==");
    assert_eq!(request.await.status, 403);
    assert!(origin.saw_nothing());
}
