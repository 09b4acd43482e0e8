use super::*;

/// The names of what a guard with these entries makes of a user agent: whether it is named, and as what it is seen.
fn named(entries: &[&str], agent: &str) -> bool {
    let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
    Names::read(&entries, &Place::default()).unwrap_or_default().name(agent.as_bytes(), &look(agent.as_bytes()))
}

const CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";

#[test]
fn bots_are_told_from_browsers() {
    for (agent, tells) in [
        (CHROME, None),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Some("Googlebot")),
        ("mozilla/5.0 (compatible; BINGBOT/2.0; +http://www.bing.com/bingbot.htm)", Some("bingbot")),
        ("curl/8.5.0", Some("curl")),
        ("Mozilla/5.0 (Linux) SomethingNewBot/0.1", Some("bot")),
        ("Mozilla/5.0 (X11; Linux x86_64; contact: ops@example.org) Firefox/140.0", Some("mail address")),
        ("Mozilla/5.0 (compatible; Crusader/1.0)", Some("no browser or device")),
        ("acme-client/3.1", Some("no browser or device")),
        (
            "Mozilla/5.0 (Linux; Android 13; Spider 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36",
            None,
        ),
        (
            "Mozilla/5.0 (Linux; Android 8.0; Pixel 2 Build/O; Storebot-Google/1.0) AppleWebKit/537.36",
            Some("Storebot-Google"),
        ),
        ("Mozilla/5.0 (Linux; U; Android 6.0; zh-cn; CUBOT NOTE S) AppleWebKit/534.30 Mobile Safari/534.30", None),
        ("CUBOT_NOTE Linux/3.4.0 Android/6.0", None),
        ("bottle-opener/1.0 (Windows NT 10.0)", None),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) Mobile/15E148 (Ecosia ios@11.2.1)", None),
        ("NokiaN70-1/5.0737 Series60/2.8 Profile/MIDP-2.0", None),
    ] {
        let sight = look(agent.as_bytes());
        assert_eq!(sight.is_bot().then(|| sight.tells().1), tells, "{agent}");
    }
}

#[test]
fn names_are_texts_at_the_start_of_a_word_categories_or_everything() {
    let images = "Googlebot-Image/1.0";
    for (about, entries, agent, expected) in [
        ("a name", &["googlebot"][..], images, true),
        ("another one", &["bingbot"], images, false),
        ("a part of a word", &["bot"], images, false),
        ("no bot at all", &["chrome"], CHROME, true),
        ("a category", &["search-engine"], "Mozilla/5.0 (compatible; Googlebot/2.1)", true),
        ("a category in another case", &["AI-Crawler"], "Mozilla/5.0 (compatible; GPTBot/1.0)", true),
        ("another category", &["seo"], "Mozilla/5.0 (compatible; GPTBot/1.0)", false),
        ("all bots", &["*"], images, true),
        ("all bots, but no browser", &["*"], CHROME, false),
        ("nobody", &[], images, false),
    ] {
        assert_eq!(named(entries, agent), expected, "{about}");
    }
}

/// Whether each line is taken for a bot's, in percent.
fn percent(lines: &str) -> f64 {
    let lines: Vec<&str> = lines.lines().filter(|line| !line.starts_with('#')).collect();
    let bots = lines.iter().filter(|line| look(line.as_bytes()).is_bot()).count();
    100.0 * bots as f64 / lines.len() as f64
}

#[test]
fn crawlers_of_another_list_are_found_and_browsers_and_devices_are_not() {
    let (crawlers, browsers) = (include_str!("testdata/crawlers.txt"), include_str!("testdata/browsers.txt"));
    assert!(crawlers.lines().count() > 75 && browsers.lines().count() > 300);
    assert!(percent(crawlers) >= 95.0, "{}", percent(crawlers));
    assert!(percent(browsers) <= 1.0, "{}", percent(browsers));
}

#[test]
fn any_bytes_are_looked_at_without_a_panic() {
    for agent in
        [&b""[..], b"@", b"@a", b"a@b.", b"\xff\xfe@\xff.\xff", b"Mozilla/5.0 (Linux; Android ;", b"^", b"(", b"curl"]
    {
        look(agent);
        look(&agent.repeat(1000));
    }
}
