//! The whole way of a user through `oauth` with a certified OpenID provider: log in, agree, come back, be refreshed, log out.

use std::time::Duration;

use crate::world::*;

const SITE: &str = "http://gateway.test";

struct Site {
    origin: Origin,
    provider: OpenId,
    gateway: Gateway,
    browser: Browser,
}

impl Site {
    async fn open(token_secs: u32, more: &str) -> Site {
        let redirect = format!("{SITE}/callback");
        let provider = tokio::task::spawn_blocking(move || OpenId::start(&redirect, token_secs));
        let (origin, provider) = (Origin::start().await, provider.await.expect("a provider"));
        let rule = format!(
            "clientId: goma, clientSecret: s3cret of the gateway, redirectUrl: '{SITE}/callback', endpoint: {{issuer: PROVIDER}}, \
             scopes: [openid, email, offline_access], authParams: {{prompt: consent}}, logoutPath: /app/logout, \
             logoutRedirectUrl: '{SITE}/bye', forwardHeaders: {{X-User: sub, X-Email: email}}{more}"
        );
        let gateway = Gateway::before(&origin)
            .word("PROVIDER", &provider)
            .routes("- {name: app, path: /app, target: ORIGIN, middlewares: [login]}\n- {name: bye, path: /bye, target: ORIGIN}")
            .middlewares(&format!("- {{name: login, type: oauth, rule: {{{rule}}}}}"))
            .await;
        let browser = Browser::knowing("gateway.test", gateway.port());
        Site { origin, provider, gateway, browser }
    }

    /// From a page that asks for a login to wherever that ends.
    async fn log_in(&self, browser: &Browser, path: &str, name: &str) -> Page {
        let form = browser.open(&format!("{SITE}{path}")).await;
        assert!(form.url.starts_with(&self.provider.to_string()), "{form:?}");
        let consent = browser.submit(&form, &[("login", name), ("password", "x")], "nowhere").await;
        browser.submit(&consent, &[], "nowhere").await
    }

    async fn get(&self, path: &str) -> Reply {
        let url = format!("{SITE}{path}");
        self.browser.fetch(self.browser.request("GET", &url, ""), &url).await
    }
}

#[tokio::test]
async fn a_user_logs_in_and_the_backend_knows_who_it_is() {
    let site = Site::open(3600, "").await;
    let page = site.log_in(&site.browser, "/app/orders?year=2026", "ann").await;
    assert_eq!((page.status(), &*page.url), (200, "http://gateway.test/app/orders?year=2026"));
    let seen = site.origin.last();
    assert_eq!((seen.header("X-User"), seen.header("X-Email")), (Some("ann"), Some("ann@shop.test")));
    // A second browser is another user; a second page needs no provider.
    let other = Browser::knowing("gateway.test", site.gateway.port());
    site.log_in(&other, "/app", "bob").await;
    assert_eq!(site.origin.last().header("X-User"), Some("bob"));
    site.provider.stop();
    assert_eq!(site.get("/app/next").await.status, 200, "sessions go on without the provider");
    assert_eq!(site.origin.last().header("X-User"), Some("ann"));
}

#[tokio::test]
async fn tabs_that_log_in_at_the_same_time_all_arrive() {
    let site = Site::open(3600, "").await;
    let first = site.browser.open(&format!("{SITE}/app/one")).await;
    let second = site.browser.open(&format!("{SITE}/app/two")).await;
    for (form, end) in [(second, "/app/two"), (first, "/app/one")] {
        let consent = site.browser.submit(&form, &[("login", "ann"), ("password", "x")], "nowhere").await;
        let page = site.browser.submit(&consent, &[], "nowhere").await;
        assert_eq!((page.status(), page.url), (200, format!("{SITE}{end}")));
    }
}

#[tokio::test]
async fn a_session_outlives_its_access_token() {
    let site = Site::open(2, "").await;
    assert_eq!(site.log_in(&site.browser, "/app", "ann").await.status(), 200);
    for round in 1..=2 {
        tokio::time::sleep(Duration::from_millis(3100)).await;
        let url = format!("{SITE}/app");
        let requests = (0..8).map(|_| site.browser.request("GET", &url, "").into_future());
        let replies = futures::future::join_all(requests).await;
        assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
        assert_eq!(site.provider.refreshed().await, round, "once for all requests");
        site.browser.keep(&url, &replies[7]);
        assert_eq!(site.origin.last().header("X-User"), Some("ann"));
    }
    // The provider forgets everything: the user has to log in again.
    site.provider.restart();
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let reply = site.get("/app").await;
    assert_eq!(reply.status, 307);
    site.provider.stop();
    assert_eq!(site.get("/app").await.status, 307, "what the provider has refused it does not say again");
}

#[tokio::test]
async fn a_user_who_logs_out_is_logged_out_everywhere() {
    let site = Site::open(3600, ", checkInterval: 1s").await;
    site.log_in(&site.browser, "/app", "ann").await;
    let stolen = site.browser.cookies().into_iter().filter(|cookie| cookie.site == "gateway.test").collect::<Vec<_>>();
    let page = site.browser.open(&format!("{SITE}/app/logout")).await;
    assert!(page.url.starts_with(&format!("{}/session/end", site.provider)), "{page:?}");
    let page = site.browser.submit(&page, &[("logout", "yes")], "nowhere").await;
    assert_eq!((page.status(), &*page.url), (200, "http://gateway.test/bye"));
    assert!(site.browser.cookie("goma_access_token").is_none());
    assert_eq!(site.get("/app").await.status, 307);
    // Another replica has not heard of it, but the provider has taken its tokens back.
    let replica = Gateway::before(&site.origin)
        .word("PROVIDER", &site.provider)
        .routes("- {name: app, path: /app, target: ORIGIN, middlewares: [login]}")
        .middlewares(&format!("- {{name: login, type: oauth, rule: {{clientId: goma, clientSecret: s3cret of the gateway, redirectUrl: '{SITE}/callback', endpoint: {{issuer: PROVIDER}}, scopes: [openid, email, offline_access], checkInterval: 1s}}}}"))
        .await;
    let copy = Browser::knowing("gateway.test", replica.port());
    copy.put(&stolen);
    let ended = async || {
        let url = format!("{SITE}/app");
        (copy.fetch(copy.request("GET", &url, ""), &url).await.status == 307).then_some(())
    };
    eventually("the stolen session ends", ended).await;
}
