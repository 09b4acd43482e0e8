//! `oauth` before a scripted provider: who is sent to log in, what comes back, what a session is good for. Spec middlewares
//! §5.8, rows 54 to 62. The whole way with a real provider is in `openid`, attacks are in `oauth_attacks`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::tokens::{Signer, in_seconds, key_set};
use crate::world::*;

/// The site as users know it.
pub const SITE: &str = "http://gateway.test";

/// A gateway, what is behind it, and the provider.
pub struct Stage {
    pub origin: Origin,
    pub provider: Origin,
    pub gateway: Gateway,
}

impl Stage {
    /// One route on `/` with this rule beside a custom provider's endpoints.
    pub async fn with(rule: &str) -> Stage {
        Stage::on("- {name: r, path: /, target: ORIGIN, middlewares: [m]}", rule).await
    }

    pub async fn on(routes: &str, rule: &str) -> Stage {
        let (origin, provider) = (Origin::start().await, Origin::start().await);
        let gateway = Gateway::before(&origin).word("PROVIDER", &provider).routes(routes);
        let gateway = gateway.middlewares(&format!("- {{name: m, type: oauth, rule: {{{CLIENT}, {rule}}}}}")).await;
        provider.always(Answer::status(404));
        Stage { origin, provider, gateway }
    }

    pub fn browser(&self) -> Browser {
        Browser::knowing("gateway.test", self.gateway.port())
    }

    /// What the token endpoint answers from now on.
    pub fn grants(&self, answer: &Value) {
        self.provider.on("/token", Answer::ok(answer.to_string()).header("Content-Type", "application/json"));
    }

    /// Opens a page and stops at the provider's door.
    pub async fn sent_to_provider(&self, browser: &Browser, path: &str) -> Page {
        browser.open_until(&format!("{SITE}{path}"), &self.provider.to_string()).await
    }

    /// Comes back from the provider with a code, and sees where that leads, without going there.
    pub async fn comes_back(&self, browser: &Browser, page: &Page, more: &str) -> Reply {
        let url = format!("{SITE}/callback?state={}&code=c0de{more}", page.parameter("state").expect("a state"));
        browser.fetch(browser.request("GET", &url, ""), &url).await
    }

    /// A browser that has logged in.
    pub async fn logged_in(&self) -> Browser {
        let browser = self.browser();
        let page = self.sent_to_provider(&browser, "/").await;
        assert_eq!(self.comes_back(&browser, &page, "").await.status, 303);
        browser
    }

    pub async fn get(&self, browser: &Browser, path: &str) -> Reply {
        let url = format!("{SITE}{path}");
        browser.fetch(browser.request("GET", &url, ""), &url).await
    }
}

/// The client and a custom provider.
pub const CLIENT: &str = "clientId: id, clientSecret: s3cret, redirectUrl: 'http://gateway.test/callback'";
/// Where a custom provider is.
pub const CUSTOM: &str = "endpoint: {authUrl: PROVIDER/auth, tokenUrl: PROVIDER/token}";

/// Tokens as a provider without OpenID gives them.
pub fn opaque() -> Value {
    json!({"access_token": "opaque", "token_type": "bearer", "refresh_token": "r1", "expires_in": 3600})
}

#[tokio::test]
async fn a_browser_without_a_session_is_sent_to_the_provider() {
    let stage = Stage::with(&format!("{CUSTOM}, scopes: [email, profile], state: st")).await;
    let reply = stage.gateway.get("/shop?x=1").await;
    assert_eq!((reply.status, reply.header("Cache-Control")), (307, Some("no-store")));
    let location = reply.header("Location").expect("a location");
    let (url, query) = location.split_once('?').expect("a query");
    assert_eq!(url, format!("{}/auth", stage.provider));
    let names: Vec<&str> = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
    let expected =
        ["client_id", "code_challenge", "code_challenge_method", "redirect_uri", "response_type", "scope", "state"];
    assert_eq!(names, expected, "sorted as in Goma");
    for pair in [
        "client_id=id",
        "redirect_uri=http%3A%2F%2Fgateway.test%2Fcallback",
        "response_type=code",
        "scope=email+profile",
    ] {
        assert!(query.split('&').any(|found| found == pair), "{pair} in {query}");
    }
    assert_eq!(reply.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(reply.text().ends_with("\">Temporary Redirect</a>.\n\n"), "{}", reply.text());
    let cookies = reply.headers.all("Set-Cookie");
    assert!(cookies.len() == 1 && cookies[0].starts_with("goma_oauth_login_"), "{cookies:?}");
    assert!(cookies[0].ends_with("; Path=/callback; Max-Age=600; HttpOnly; SameSite=Lax"), "{cookies:?}");
    assert!(stage.origin.saw_nothing() && stage.provider.saw_nothing());
}

#[tokio::test]
async fn programs_are_told_that_they_have_no_session() {
    let stage = Stage::with(CUSTOM).await;
    let get = || stage.gateway.get("/data");
    let rows = [
        ("asks for JSON", get().accept("application/json"), 401),
        ("asks for a JSON dialect", get().accept("application/problem+json, */*"), 401),
        ("a browser that takes JSON too", get().accept("text/html, application/json"), 307),
        ("a script", get().header("X-Requested-With", "XMLHttpRequest"), 401),
        ("a script by its fetch", get().header("Sec-Fetch-Mode", "cors"), 401),
        ("a picture", get().header("Sec-Fetch-Mode", "no-cors"), 401),
        ("a browser that goes somewhere", get().header("Sec-Fetch-Mode", "navigate"), 307),
        ("events", get().accept("text/event-stream"), 401),
        ("a form", stage.gateway.post("/data").body("a=b"), 401),
        ("another method", stage.gateway.request("DELETE", "/data"), 401),
        ("a look at the head", stage.gateway.request("HEAD", "/data"), 307),
        ("no wishes", get(), 307),
    ];
    for (description, request, status) in rows {
        let reply = request.await;
        assert_eq!(reply.status, status, "{description}");
        let challenge = (status == 401).then_some("Cookie cookie-name=\"goma_access_token\"");
        assert_eq!(reply.header("WWW-Authenticate"), challenge, "{description}");
    }
    assert!(stage.origin.saw_nothing());
}

#[tokio::test]
async fn a_login_ends_where_the_user_wanted_to_go() {
    let stage = Stage::with(CUSTOM).await;
    stage.grants(&opaque());
    let browser = stage.browser();
    let page = stage.sent_to_provider(&browser, "/shop/cart?item=1&x=%2F").await;
    let reply = stage.comes_back(&browser, &page, "").await;
    assert_eq!((reply.status, reply.header("Location")), (303, Some("/shop/cart?item=1&x=%2F")));
    assert_eq!(reply.text(), "<a href=\"/shop/cart?item=1&amp;x=%2F\">See Other</a>.\n\n");
    let seen = stage.provider.last();
    assert_eq!((&*seen.method, &*seen.target), ("POST", "/token"));
    assert_eq!(seen.header("Authorization"), Some("Basic aWQ6czNjcmV0"));
    let form = seen.text();
    assert!(
        form.starts_with(
            "grant_type=authorization_code&code=c0de&redirect_uri=http%3A%2F%2Fgateway.test%2Fcallback&code_verifier="
        ),
        "{form}"
    );
    for name in ["goma_access_token", "goma_refresh_token"] {
        let cookie = browser.cookie(name).expect(name);
        assert!(cookie.line.ends_with("; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax"), "{}", cookie.line);
        assert!(!cookie.value.contains("opaque"), "sealed");
    }
    assert!(!browser.cookies().iter().any(|cookie| cookie.name.starts_with("goma_oauth_login")), "it is over");
    let reply = stage.get(&browser, "/shop/cart").await;
    assert_eq!(reply.status, 200);
    let seen = stage.origin.last();
    assert_eq!(seen.header("Authorization"), None, "as in Goma");
    assert!(seen.header("Cookie").is_some_and(|line| line.contains("goma_access_token=")), "cookies travel on");
    let form = browser.request("POST", &format!("{SITE}/shop"), "a=b").accept("application/json");
    assert_eq!(form.await.status, 200, "a session serves every request");
}

#[tokio::test]
async fn answers_that_nobody_asked_for_are_refused() {
    let stage = Stage::with(&format!("{CUSTOM}, state: st")).await;
    for (query, text) in [
        ("?state=no&code=1", "Invalid state\n"),
        ("?state=st", "Missing code\n"),
        ("?state=st&code=1", "Invalid state\n"),
        ("?state=no", "Invalid state\n"),
        ("?code=1", "Invalid state\n"),
        ("", "Invalid state\n"),
        ("?state=st&state=st", "Invalid state\n"),
    ] {
        let reply = stage.gateway.get(&format!("/callback{query}")).accept("application/json").await;
        assert_eq!((reply.status, &*reply.text()), (400, text), "{query}");
        assert_eq!(reply.header("Content-Type"), Some("text/plain; charset=utf-8"), "{query}: not negotiated");
    }
    let reply = stage.gateway.post("/callback?state=st").await;
    assert_eq!((reply.status, reply.header("Allow")), (405, Some("GET")));
    assert!(stage.provider.saw_nothing() && stage.origin.saw_nothing());
}

#[tokio::test]
async fn a_provider_that_says_no_ends_the_login() {
    let stage = Stage::with(CUSTOM).await;
    let browser = stage.browser();
    let page = stage.sent_to_provider(&browser, "/").await;
    let state = page.parameter("state").expect("a state");
    let reply =
        stage.get(&browser, &format!("/callback?state={state}&error=access_denied&error_description=%3Cb%3E")).await;
    assert_eq!((reply.status, &*reply.text()), (400, "Missing code\n"));
    assert!(browser.cookies().is_empty(), "{:?}", browser.cookies());
    let reason =
        "goma_edge_auth_total{kind=\"oauth\",middleware=\"m\",reason=\"provider_refused\",result=\"denied\"} 1";
    stage.gateway.counts(reason).await;
}

/// Answers of the token endpoint, and what the user sees.
#[tokio::test]
async fn a_code_that_buys_no_token_ends_the_login() {
    for (description, answer, status) in [
        ("a used code", Answer::status(400).body(r#"{"error":"invalid_grant"}"#), 500),
        ("a wrong secret", Answer::status(401).body(r#"{"error":"invalid_client"}"#), 500),
        ("an error with status 200", Answer::ok(r#"{"error":"bad_verification_code"}"#), 500),
        ("a broken provider", Answer::status(502), 500),
        ("no JSON", Answer::ok("<html>"), 500),
        ("a redirect", Answer::status(302).header("Location", "/elsewhere"), 500),
        ("nothing", Answer::close(), 503),
    ] {
        let stage = Stage::with(CUSTOM).await;
        stage.provider.on("/token", answer);
        let browser = stage.browser();
        let page = stage.sent_to_provider(&browser, "/").await;
        let reply = stage.comes_back(&browser, &page, "").await;
        assert_eq!(reply.status, status, "{description}");
        if status == 500 {
            assert_eq!(reply.text(), "Failed to exchange token\n", "{description}");
        }
        assert_eq!(browser.cookie("goma_access_token").map(|cookie| cookie.value), None, "{description}");
    }
}

#[tokio::test]
async fn credentials_go_into_the_body_when_the_header_does_not_do() {
    let stage = Stage::with(CUSTOM).await;
    stage.provider.on("/token", Answer::status(401).body(r#"{"error":"invalid_client"}"#));
    let browser = stage.browser();
    let page = stage.sent_to_provider(&browser, "/").await;
    assert_eq!(stage.comes_back(&browser, &page, "").await.status, 500);
    let seen = stage.provider.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].header("Authorization").is_some() && !seen[0].text().contains("client_secret"));
    assert!(
        seen[1].header("Authorization").is_none() && seen[1].text().ends_with("&client_id=id&client_secret=s3cret")
    );
}

#[tokio::test]
async fn a_login_works_on_any_path() {
    let route = |path: &str| format!("- {{name: r, path: {path}, target: ORIGIN, middlewares: [m]}}");
    for (path, callback) in
        [("/", "/callback"), ("/prot", "/callback"), ("/prot", "/prot/callback"), ("/a/b", "/callback")]
    {
        let stage = Stage::on(&route(path), CUSTOM).await;
        stage.grants(&opaque());
        let browser = stage.browser();
        let page = stage.sent_to_provider(&browser, &format!("{path}?x")).await;
        let state = page.parameter("state").expect("a state");
        let from = browser.cookies();
        // What is set for the path of `redirectUrl` is sent to the other one only by those who test it.
        browser.put(&from.iter().map(|kept| Kept { path: callback.to_owned(), ..kept.clone() }).collect::<Vec<_>>());
        let reply = stage.get(&browser, &format!("{callback}?state={state}&code=c")).await;
        assert_eq!((reply.status, reply.header("Location")), (303, Some(&*format!("{path}?x"))), "{path} {callback}");
        let cookie = browser.cookie("goma_access_token").expect("a session");
        assert_eq!(cookie.path, path, "the route's path");
        assert_eq!(stage.get(&browser, path).await.status, 200, "{path}");
        let reply = stage.gateway.get(&format!("{callback}?state=no&code=1")).await;
        assert_eq!((reply.status, &*reply.text()), (400, "Invalid state\n"), "{path} {callback}");
    }
}

#[tokio::test]
async fn routes_that_share_a_callback_get_their_own_answers() {
    let (origin, one, two) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let definition = |name: &str, op: &str, secret: &str| {
        format!(
            "- {{name: {name}, type: oauth, rule: {{clientId: {name}, clientSecret: {secret}, redirectUrl: 'http://gateway.test/callback', endpoint: {{authUrl: {op}/auth, tokenUrl: {op}/token}}}}}}\n"
        )
    };
    let gateway = Gateway::before(&origin)
        .word("ONE", &one)
        .word("TWO", &two)
        .routes(
            "- {name: a, path: /, target: ORIGIN, middlewares: [a]}
- {name: b, path: /b, target: ORIGIN, middlewares: [b]}
- {name: c, path: /c, hosts: [gateway.test], target: ORIGIN, middlewares: [b]}",
        )
        .middlewares(&(definition("a", "ONE", "s1") + &definition("b", "TWO", "s2")))
        .await;
    for provider in [&one, &two] {
        provider.on("/token", Answer::ok(opaque().to_string()));
    }
    let browser = Browser::knowing("gateway.test", gateway.port());
    let mut waiting = Vec::new();
    for (path, provider) in [("/x", &one), ("/b/x", &two), ("/c/x", &two)] {
        // Several tabs at once.
        let page = browser.open_until(&format!("{SITE}{path}"), &provider.to_string()).await;
        waiting.push((path, provider, page.parameter("state").expect("a state")));
    }
    for (path, provider, state) in waiting {
        let before = provider.seen().len();
        let url = format!("{SITE}/callback?state={state}&code=c");
        let reply = browser.fetch(browser.request("GET", &url, ""), &url).await;
        assert_eq!((reply.status, reply.header("Location")), (303, Some(path)), "{path}");
        assert_eq!(provider.seen().len(), before + 1, "{path}");
        let url = format!("{SITE}{path}");
        assert_eq!(browser.fetch(browser.request("GET", &url, ""), &url).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn definitions_that_share_cookies_and_not_their_wishes_log_a_user_in_once_each() {
    let (origin, provider) = (Origin::start().await, Origin::start().await);
    let endpoint = CUSTOM.replace('}', ", userInfoUrl: PROVIDER/me}");
    let definition = |name: &str, more: &str| {
        format!("- {{name: {name}, type: oauth, rule: {{{CLIENT}, {endpoint}, cookiePath: /, {more}}}}}\n")
    };
    let gateway = Gateway::before(&origin)
        .word("PROVIDER", &provider)
        .routes("- {name: a, path: /a, target: ORIGIN, middlewares: [a]}\n- {name: b, path: /b, target: ORIGIN, middlewares: [b]}")
        .middlewares(&(definition("a", "forwardHeaders: {X-A: sub}") + &definition("b", "forwardHeaders: {X-B: mail}")))
        .await;
    provider.on("/token", Answer::ok(opaque().to_string()));
    provider.on("/me", Answer::ok(json!({"sub": "ann", "mail": "ann@shop.test"}).to_string()));
    let browser = Browser::knowing("gateway.test", gateway.port());
    for path in ["/a", "/b"] {
        let page = browser.open_until(&format!("{SITE}{path}"), &provider.to_string()).await;
        let state = page.parameter("state").expect("a state");
        let page = browser.open(&format!("{SITE}/callback?state={state}&code=c")).await;
        assert_eq!((page.status(), page.url), (200, format!("{SITE}{path}")));
    }
    for (path, header, value) in [("/a", "X-A", "ann"), ("/b", "X-B", "ann@shop.test"), ("/a", "X-A", "ann")] {
        assert_eq!(browser.open(&format!("{SITE}{path}")).await.status(), 200, "{path}");
        assert_eq!(origin.last().header(header), Some(value), "{path}");
    }
}

#[tokio::test]
async fn a_limit_behind_a_login_counts_by_what_the_session_knows() {
    for (claim, header) in [("realm.tenant", "X-User"), ("sub", "X-User"), ("realm.tenant", "X-Tenant")] {
        let (origin, provider) = (Origin::start().await, Origin::start().await);
        let endpoint = CUSTOM.replace('}', ", userInfoUrl: PROVIDER/me}");
        let forwarded = if header == "X-User" { "X-User: name" } else { "X-Tenant: realm.tenant" };
        let gateway = Gateway::before(&origin)
            .word("PROVIDER", &provider)
            .routes("- {name: r, path: /, target: ORIGIN, middlewares: [login, limit]}")
            .middlewares(&format!(
                "- {{name: login, type: oauth, rule: {{{CLIENT}, {endpoint}, forwardHeaders: {{{forwarded}}}}}}}
- {{name: limit, type: rateLimit, rule: {{unit: hour, requestsPerUnit: 1, keyStrategy: {{source: claim, name: {claim}}}}}}}"
            ))
            .await;
        provider.on("/token", Answer::ok(opaque().to_string()));
        for (who, statuses) in [("a", [200, 429]), ("b", [200, 429]), ("a", [429, 429])] {
            let user = json!({"sub": who, "name": "ann", "realm": {"tenant": who}});
            provider.on("/me", Answer::ok(user.to_string()));
            let browser = Browser::knowing("gateway.test", gateway.port());
            let page = browser.open_until(&format!("{SITE}/"), &provider.to_string()).await;
            let state = page.parameter("state").expect("a state");
            let page = browser.open(&format!("{SITE}/callback?state={state}&code=c")).await;
            assert_eq!(page.status(), statuses[0], "{claim} of {who}");
            assert_eq!(browser.open(&format!("{SITE}/")).await.status(), statuses[1], "{claim} of {who}, again");
        }
    }
}

#[tokio::test]
async fn paths_decide_what_asks_for_a_login() {
    let (origin, provider) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::before(&origin)
        .word("PROVIDER", &provider)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, type: oauth2, paths: [/admin/*], rule: {{{CLIENT}, {CUSTOM}}}}}"))
        .await;
    for (path, status) in [("/open", 200), ("/admin", 307), ("/admin/x", 307), ("/%61dmin", 307), ("//admin", 307)] {
        assert_eq!(gateway.get(path).await.status, status, "{path}");
    }
    assert_eq!(gateway.get("/callback?state=x&code=y").await.status, 400, "the callback is there all the same");
    assert_eq!(gateway.get("/%63allback?state=x&code=y").await.status, 400, "however it is spelled");
}

#[tokio::test]
async fn a_page_to_go_to_is_gone_to() {
    let stage = Stage::with(&format!("{CUSTOM}, redirectPath: /welcome, cookiePath: /shop")).await;
    stage.grants(&opaque());
    let browser = stage.browser();
    let page = stage.sent_to_provider(&browser, "/shop/x").await;
    let reply = stage.comes_back(&browser, &page, "").await;
    assert_eq!((reply.status, reply.header("Location")), (303, Some("/welcome")));
    assert_eq!(browser.cookie("goma_access_token").map(|cookie| cookie.path).as_deref(), Some("/shop"));
}

#[tokio::test]
async fn cookies_are_for_tls_only_where_the_site_is() {
    let secure = CLIENT.replace("http:", "https:");
    let (origin, provider) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::before(&origin)
        .word("PROVIDER", &provider)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, type: oauth, rule: {{{secure}, {CUSTOM}}}}}"))
        .await;
    let reply = gateway.get("/").await;
    assert!(reply.header("Set-Cookie").is_some_and(|cookie| cookie.ends_with("; HttpOnly; Secure; SameSite=Lax")));
}

#[tokio::test]
async fn opaque_tokens_are_checked_at_the_login() {
    for (description, endpoint, path, answer, status) in [
        ("user info", "userInfoUrl: PROVIDER/me", "/me", Answer::ok(r#"{"id":7,"login":"ann"}"#), 303),
        ("user info says no", "userInfoUrl: PROVIDER/me", "/me", Answer::status(401), 500),
        ("user info is broken", "userInfoUrl: PROVIDER/me", "/me", Answer::status(500), 500),
        ("user info is down", "userInfoUrl: PROVIDER/me", "/me", Answer::close(), 503),
        ("introspection", "introspectionUrl: PROVIDER/i", "/i", Answer::ok(r#"{"active":true,"sub":"ann"}"#), 303),
        ("introspection says no", "introspectionUrl: PROVIDER/i", "/i", Answer::ok(r#"{"active":false}"#), 500),
        ("introspection says nothing", "introspectionUrl: PROVIDER/i", "/i", Answer::ok("{}"), 500),
    ] {
        let endpoint = CUSTOM.replace('}', &format!(", {endpoint}}}"));
        let stage = Stage::with(&format!("{endpoint}, forwardHeaders: {{X-User: login, X-Sub: sub}}")).await;
        stage.grants(&opaque());
        stage.provider.on(path, answer);
        let browser = stage.browser();
        let page = stage.sent_to_provider(&browser, "/").await;
        assert_eq!(stage.comes_back(&browser, &page, "").await.status, status, "{description}");
        let asked = stage.provider.last();
        match path {
            "/me" => assert_eq!(asked.header("Authorization"), Some("Bearer opaque"), "{description}"),
            _ => assert_eq!(asked.text(), "token=opaque&token_type_hint=access_token", "{description}"),
        }
        if status == 303 {
            assert_eq!(stage.get(&browser, "/").await.status, 200, "{description}");
            let seen = stage.origin.last();
            let names = (seen.header("X-User").map(str::to_owned), seen.header("X-Sub").map(str::to_owned));
            let (user, sub) = if path == "/me" { (Some("ann"), None) } else { (None, Some("ann")) };
            assert_eq!(names, (user.map(str::to_owned), sub.map(str::to_owned)), "{description}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_revoked_ends_the_session_at_the_next_check() {
    let endpoint = CUSTOM.replace('}', ", userInfoUrl: PROVIDER/me}");
    let stage = Stage::with(&format!("{endpoint}, checkInterval: 1s")).await;
    stage.grants(&json!({"access_token": "opaque"}));
    stage.provider.on("/me", Answer::ok(r#"{"sub":"ann"}"#));
    let browser = stage.logged_in().await;
    assert_eq!(stage.get(&browser, "/").await.status, 200);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    stage.provider.forget();
    let first = browser.cookie("goma_access_token").map(|cookie| cookie.value);
    assert_eq!(stage.get(&browser, "/").await.status, 200, "checked again");
    assert_eq!(stage.provider.seen().len(), 1);
    assert_ne!(browser.cookie("goma_access_token").map(|cookie| cookie.value), first, "the session knows");
    // A provider that is down leaves sessions in peace.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    stage.provider.on("/me", Answer::close());
    assert_eq!(stage.get(&browser, "/").await.status, 200, "unchecked");
    stage.provider.on("/me", Answer::status(401));
    let reply = eventually("the provider is asked again", async || {
        Some(stage.get(&browser, "/").await).filter(|reply| reply.status != 200)
    });
    assert_eq!(reply.await.status, 307);
}

#[tokio::test]
async fn an_expired_token_is_refreshed_once_for_all_requests() {
    let stage = Stage::with(CUSTOM).await;
    stage.grants(&json!({"access_token": "a1", "refresh_token": "r1", "expires_in": 1}));
    let browser = stage.logged_in().await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    stage.provider.forget();
    let next = json!({"access_token": "a2", "refresh_token": "r2", "expires_in": 3600});
    stage.provider.on("/token", Answer::ok(next.to_string()).delay(Duration::from_millis(200)));
    let request = || browser.request("GET", &format!("{SITE}/"), "");
    let replies = futures::future::join_all((0..20).map(|_| request().into_future())).await;
    for reply in &replies {
        assert_eq!(reply.status, 200);
        let cookies = reply.headers.all("Set-Cookie");
        assert!(cookies.len() == 2 && cookies[0].starts_with("goma_access_token="), "{cookies:?}");
        assert_eq!(reply.header("Cache-Control"), Some("private"), "nobody else may have it");
    }
    let late = request().await;
    assert_eq!((late.status, late.headers.all("Set-Cookie").len()), (200, 2), "one that was on its way");
    let seen = stage.provider.seen();
    assert_eq!(seen.len(), 1, "one refresh");
    assert_eq!(seen[0].text(), "grant_type=refresh_token&refresh_token=r1");
    browser.keep(SITE, &late);
    let reply = stage.get(&browser, "/").await;
    assert_eq!((reply.status, reply.headers.all("Set-Cookie").len()), (200, 0));
}

#[tokio::test]
async fn a_refresh_that_fails_sends_the_user_to_log_in_unless_the_provider_is_down() {
    let used = Answer::status(400).body(r#"{"error":"invalid_grant"}"#);
    for (description, answer, status) in
        [("refused", used, 307), ("down", Answer::close(), 503), ("broken", Answer::status(502), 503)]
    {
        let stage = Stage::with(CUSTOM).await;
        stage.grants(&json!({"access_token": "a1", "refresh_token": "r1", "expires_in": 1}));
        let browser = stage.logged_in().await;
        tokio::time::sleep(Duration::from_millis(2100)).await;
        stage.provider.on("/token", answer);
        assert_eq!(stage.get(&browser, "/").await.status, status, "{description}");
        assert!(stage.origin.saw_nothing(), "{description}");
    }
}

#[tokio::test]
async fn a_session_without_a_refresh_token_ends_with_its_token() {
    let stage = Stage::with(CUSTOM).await;
    stage.grants(&json!({"access_token": "a1", "expires_in": 1}));
    let browser = stage.logged_in().await;
    assert_eq!(browser.cookie("goma_refresh_token").map(|cookie| cookie.value).as_deref(), Some(""), "as in Goma");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(stage.get(&browser, "/").await.status, 307);
}

#[tokio::test]
async fn sessions_survive_restarts_and_other_replicas_know_them() {
    let stage = Stage::with(CUSTOM).await;
    stage.grants(&opaque());
    let browser = stage.logged_in().await;
    let cookie = |name| browser.cookie(name).map(|cookie| format!("{name}={}", cookie.value)).expect("a cookie");
    let cookies = format!("{}; {}", cookie("goma_access_token"), cookie("goma_refresh_token"));
    for (description, secret, status) in [("another replica", "s3cret", 200), ("another secret", "0ther", 307)] {
        let replica = Gateway::before(&stage.origin)
            .word("PROVIDER", &stage.provider)
            .routes("- {name: other, path: /, target: ORIGIN, middlewares: [m]}")
            .middlewares(&format!(
                "- {{name: m, type: oauth, rule: {{{}, {CUSTOM}}}}}",
                CLIENT.replace("s3cret", secret)
            ))
            .await;
        assert_eq!(replica.get("/").header("Cookie", &cookies).await.status, status, "{description}");
    }
}

#[tokio::test]
async fn logging_out_ends_the_session_and_gives_the_tokens_back() {
    let endpoint = CUSTOM.replace('}', ", endSessionUrl: PROVIDER/end, revocationUrl: PROVIDER/revoke}");
    let stage =
        Stage::with(&format!("{endpoint}, logoutPath: /logout, logoutRedirectUrl: 'http://gateway.test/bye'")).await;
    stage.grants(&opaque());
    stage.provider.on("/revoke", Answer::ok("{}"));
    let browser = stage.logged_in().await;
    let stolen = browser.cookies();
    let cross = browser.request("GET", &format!("{SITE}/logout"), "").header("Sec-Fetch-Site", "cross-site");
    assert_eq!(cross.await.status, 403, "nobody else's page logs users out");
    let reply = stage.get(&browser, "/logout").await;
    let end = format!("{}/end?client_id=id&post_logout_redirect_uri=http%3A%2F%2Fgateway.test%2Fbye", stage.provider);
    assert_eq!((reply.status, reply.header("Location")), (303, Some(&*end)));
    assert!(browser.cookies().is_empty(), "{:?}", browser.cookies());
    assert_eq!(stage.get(&browser, "/").await.status, 307);
    browser.put(&stolen);
    assert_eq!(stage.get(&browser, "/").await.status, 307, "a copy of the cookies is worth nothing");
    let revoked = || stage.provider.seen().iter().any(|seen| seen.target == "/revoke" && seen.text() == "token=r1");
    eventually("the refresh token is revoked", async || revoked().then_some(())).await;
}

#[tokio::test]
async fn long_tokens_go_into_several_cookies() {
    let stage = Stage::with(&format!("{CUSTOM}, forwardAccessToken: true")).await;
    let token = "t".repeat(9000);
    stage.grants(&json!({"access_token": token, "refresh_token": "r".repeat(5000)}));
    let browser = stage.logged_in().await;
    for name in ["goma_access_token_1", "goma_access_token_3", "goma_refresh_token_1"] {
        assert!(browser.cookie(name).is_some_and(|cookie| cookie.line.len() < 4096), "{name}");
    }
    assert_eq!(stage.get(&browser, "/").await.status, 200);
    assert_eq!(stage.origin.last().header("Authorization"), Some(&*format!("Bearer {token}")));
    stage.grants(&json!({"access_token": "t".repeat(40_000)}));
    let browser = stage.browser();
    let page = stage.sent_to_provider(&browser, "/").await;
    assert_eq!(stage.comes_back(&browser, &page, "").await.status, 500, "nobody can keep that");
}

#[tokio::test]
async fn a_provider_that_cannot_be_discovered_does_not_stop_sessions() {
    let discovery = |provider: &Origin| {
        json!({
            "issuer": provider.to_string(),
            "authorization_endpoint": format!("{provider}/auth"),
            "token_endpoint": format!("{provider}/token"),
        })
    };
    let stage = Stage::with("endpoint: {issuer: PROVIDER}").await;
    let reply = stage.gateway.get("/").await;
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("5")), "no provider, no login");
    assert_eq!(stage.gateway.get("/").accept("application/json").await.status, 401);
    stage.provider.on("/.well-known/openid-configuration", Answer::ok(discovery(&stage.provider).to_string()));
    stage.grants(&opaque());
    eventually("the provider is found", async || (stage.gateway.get("/").await.status == 307).then_some(())).await;
    let browser = stage.logged_in().await;
    stage.provider.stop().await;
    assert_eq!(stage.get(&browser, "/").await.status, 200, "a session does not need it");
}

#[tokio::test]
async fn claims_and_tokens_reach_the_backend_and_nobody_else_sets_them() {
    let rule = "endpoint: {authUrl: PROVIDER/auth, tokenUrl: PROVIDER/token, jwksUrl: PROVIDER/jwks}, scopes: [openid], \
                forwardHeaders: {X-User: sub, X-Groups: realm.groups, X-None: none, X_Odd: sub}, forwardAccessToken: true";
    let stage = Stage::with(rule).await;
    let signer = Signer::p256();
    stage.provider.on("/jwks", Answer::ok(key_set(&[signer.jwk("k1")])));
    let browser = stage.browser();
    let page = stage.sent_to_provider(&browser, "/").await;
    let claims = json!({"sub": "ann", "aud": "id", "exp": in_seconds(60), "nonce": page.parameter("nonce"), "realm": {"groups": ["a", "b"]}});
    let access = signer.named("ES256", "k1", &json!({"sub": "ann", "exp": in_seconds(60)}));
    stage.grants(&json!({"access_token": access, "id_token": signer.named("ES256", "k1", &claims)}));
    assert_eq!(stage.comes_back(&browser, &page, "").await.status, 303);
    let request = browser.request("GET", &format!("{SITE}/"), "");
    let request = request
        .header("X-User", "root")
        .header("x_user", "root")
        .header("X-None", "x")
        .header("X_Odd", "root")
        .header("Authorization", "Bearer mine");
    assert_eq!(request.header("Connection", "X-Groups").await.status, 200);
    let seen = stage.origin.last();
    assert_eq!((seen.headers.all("X-User"), seen.headers.all("x_user")), (vec!["ann"], vec![]));
    assert_eq!(seen.headers.all("X_Odd"), ["ann"]);
    assert_eq!((seen.header("X-Groups"), seen.header("X-None")), (Some("a,b"), None));
    assert_eq!(seen.headers.all("Authorization"), [&*format!("Bearer {access}")]);
}

#[tokio::test]
async fn named_providers_bring_their_endpoints() {
    let middlewares: String = ["google", "github", "gitlab", "amazon", "facebook"]
        .iter()
        .map(|name| format!("- {{name: {name}, type: oauth, rule: {{{CLIENT}, provider: {name}, scopes: [email]}}}}\n"))
        .collect();
    let routes: String = ["google", "github", "gitlab", "amazon", "facebook"]
        .iter()
        .map(|name| format!("- {{name: {name}, path: /{name}, target: 'http://127.0.0.1:1', middlewares: [{name}]}}\n"))
        .collect();
    let gateway = Gateway::builder().routes(&routes).middlewares(&middlewares).await;
    for (name, url) in [
        ("google", "https://accounts.google.com/o/oauth2/auth?"),
        ("github", "https://github.com/login/oauth/authorize?"),
        ("gitlab", "https://gitlab.com/oauth/authorize?"),
        ("amazon", "https://www.amazon.com/ap/oa?"),
        ("facebook", "https://www.facebook.com/v3.2/dialog/oauth?"),
    ] {
        let reply = gateway.get(&format!("/{name}")).await;
        assert!(reply.header("Location").is_some_and(|location| location.starts_with(url)), "{name}: {reply:?}");
    }
}

#[tokio::test]
async fn explain_says_who_would_be_sent_to_log_in() {
    let stage = Stage::with(CUSTOM).await;
    let file = stage.gateway.file("goma.yml").display().to_string();
    let ask = async |arguments: &[&str]| {
        let arguments = [&["config", "explain", "-c", &*file, "--json"], arguments].concat();
        let output = goma(&arguments).await;
        serde_json::from_str::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{}", output.all()))
    };
    let page = ask(&["GET", "http://gateway.test/x"]).await;
    assert_eq!((&page["outcome"], &page["status"]), (&json!("answered:oauth"), &json!(307)));
    let program = ask(&["GET", "http://gateway.test/x", "-H", "Accept: application/json"]).await;
    assert_eq!((&program["outcome"], &program["status"]), (&json!("denied:oauth"), &json!(401)));
    let back = ask(&["GET", "http://gateway.test/callback?state=x&code=y"]).await;
    assert_eq!((&back["route"], &back["status"]), (&json!("r"), &json!(400)));
    assert!(stage.provider.saw_nothing());
}

#[tokio::test]
async fn the_log_says_why_and_holds_no_secret() {
    let stage = Stage::with(CUSTOM).await;
    stage.grants(&opaque());
    let browser = stage.logged_in().await;
    stage.gateway.get("/").header("Cookie", "goma_access_token=1.forged").accept("application/json").await;
    stage
        .gateway
        .counts("goma_edge_auth_total{kind=\"oauth\",middleware=\"m\",reason=\"bad_session\",result=\"denied\"} 1")
        .await;
    stage
        .gateway
        .counts("goma_edge_auth_total{kind=\"oauth\",middleware=\"m\",reason=\"logged_in\",result=\"answered\"} 1")
        .await;
    let cookie = browser.cookie("goma_access_token").expect("a session").value;
    let log = stage.gateway.log();
    for secret in ["s3cret", "code=c0de", "opaque", "r1\"", &*cookie] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
