//! Rows 16, 17, 86, 104, 115 and their like: what a configuration is refused for, and what the message says.

use crate::world::*;

/// All of them in one file: everything that is wrong is told at once.
#[tokio::test]
async fn what_goma_serves_without_its_middleware_is_refused_with_a_message() {
    let rows = [
        ("row 86: a limit without a unit", "type: bodyLimit, rule: {limit: 100}", "rule.limit"),
        ("row 86: a unit in lower case", "type: bodyLimit, rule: {limit: 1mb}", "rule.limit"),
        ("a limit with a blank", "type: bodyLimit, rule: {limit: '1 MB'}", "rule.limit"),
        ("a limit with a fraction", "type: bodyLimit, rule: {limit: 1.5Mi}", "rule.limit"),
        ("no limit", "type: bodyLimit", "rule.limit"),
        ("row 104", "type: rewriteRegex, rule: {pattern: '(', replacement: x}", "rule.pattern"),
        ("row 115", "type: redirectRegex, rule: {pattern: '(', replacement: x}", "rule.pattern"),
        ("look-ahead", "type: rewriteRegex, rule: {pattern: 'a(?=b)', replacement: x}", "rule.pattern"),
        ("a status of two digits", "type: access, paths: [/a], rule: {statusCode: 42}", "rule.statusCode"),
        ("a policy without ranges", "type: accessPolicy, rule: {action: DENY}", "rule.sourceRanges"),
        ("an empty list of ranges", "type: accessPolicy, rule: {sourceRanges: []}", "rule.sourceRanges"),
        ("a range that is none", "type: accessPolicy, rule: {sourceRanges: [10.0.0.0/33]}", "rule.sourceRanges[0]"),
        ("an action that is none", "type: accessPolicy, rule: {action: BLOCK, sourceRanges: ['::1']}", "rule.action"),
        ("no countries", "type: geoBlock, rule: {action: DENY, countries: []}", "rule.countries"),
        ("a country of three letters", "type: geoBlock, rule: {action: DENY, countries: [DEU]}", "rule.countries[0]"),
        ("no action", "type: geoBlock, rule: {countries: [DE]}", "rule.action"),
        (
            "an empty text that would block everybody",
            "type: userAgentBlock, rule: {userAgents: [a, '']}",
            "rule.userAgents[1]",
        ),
        ("no texts", "type: userAgentBlock, rule: {userAgents: []}", "rule.userAgents"),
        ("no rule at all", "type: userAgentBlock", "rule.userAgents"),
        ("no parameters", "type: stripQuery, rule: {params: []}", "rule.params"),
        ("a path pattern", "type: stripQuery, rule: {params: [a], pathPattern: '['}", "rule.pathPattern"),
        ("no scheme", "type: redirectScheme", "rule.scheme"),
        ("a port that is none", "type: redirectScheme, rule: {scheme: https, port: 70000}", "rule.port"),
        ("no url", "type: redirect", "rule.url"),
        ("no replacement", "type: redirectRegex, rule: {pattern: a}", "rule.replacement"),
        ("nothing to set", "type: requestHeaders, rule: {setHeaders: {}}", "rule"),
        ("a header name with a blank", "type: requestHeaders, rule: {setHeaders: {'a b': c}}", "rule.setHeaders.a b"),
        ("a line end", "type: responseHeaders, rule: {setHeaders: {a: \"b\\r\\nc: d\"}}", "rule.setHeaders.a"),
        (
            "a cookie twice",
            "type: responseHeaders, rule: {setCookies: [{name: a, value: b}, {name: a, value: c}]}",
            "rule.setCookies[1].name",
        ),
        (
            "a cookie's name",
            "type: responseHeaders, rule: {setCookies: [{name: 'a;b', value: c}]}",
            "rule.setCookies[0].name",
        ),
        (
            "a cookie's domain",
            "type: responseHeaders, rule: {setCookies: [{name: a, value: c, attributes: {domain: 'https://a'}}]}",
            "rule.setCookies[0].attributes.domain",
        ),
        (
            "a status of caching",
            "type: responseHeaders, rule: {cacheControl: x, cacheStatuses: [99]}",
            "rule.cacheStatuses[0]",
        ),
        (
            "any origin with credentials",
            "type: responseHeaders, rule: {cors: {enabled: true, origins: ['*'], allowCredentials: true}}",
            "rule.cors.origins",
        ),
        (
            "an origin with a path",
            "type: responseHeaders, rule: {cors: {enabled: true, origins: ['https://a.example/x']}}",
            "rule.cors.origins[0]",
        ),
        (
            "a maximal age",
            "type: responseHeaders, rule: {cors: {enabled: true, origins: ['https://a'], maxAge: 86401}}",
            "rule.cors.maxAge",
        ),
        ("nothing to log", "type: accessLog, rule: {headers: []}", "rule"),
        ("no errors", "type: errorInterceptor, rule: {enabled: true}", "rule.errors"),
        (
            "a file that is missing",
            "type: errorInterceptor, rule: {enabled: true, errors: [{statusCode: 404, file: /none}]}",
            "rule.errors[0].file",
        ),
        ("a threshold", "type: exploitProtection, rule: {threshold: 0}", "rule.threshold"),
        ("a mode of protection", "type: exploitProtection, rule: {mode: log}", "rule.mode"),
        ("a mode of detection", "type: botDetection, rule: {mode: log}", "rule.mode"),
        ("a coding", "type: compress, rule: {encodings: [deflate]}", "rule.encodings[0]"),
        ("a type in lower case", "type: accesspolicy, rule: {sourceRanges: ['::1']}", "type"),
        ("paths as a text", "type: access, paths: /admin", "paths"),
        ("a name that is a number where a list is", "type: stripQuery, rule: {params: 5}", "rule.params"),
    ];
    let item = |(index, (_, keys, _)): (usize, &(&str, &str, &str))| format!("- {{name: m{index}, {keys}}}");
    let middlewares: Vec<String> = rows.iter().enumerate().map(item).collect();
    let output = checked("", &middlewares.join("\n")).await;
    assert_eq!(output.code, Some(1), "{}", output.all());
    for (index, (about, _, place)) in rows.iter().enumerate() {
        let place = format!("middlewares[{index}].{place}: ");
        assert!(output.all().contains(&place), "{about}: {place} in {}", output.all());
    }
}

/// What `config check` says of a file with one route and these middlewares.
async fn checked(listed: &str, middlewares: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("goma.yml");
    let routes = format!("- {{name: r, path: /, target: 'http://127.0.0.1:1', middlewares: [{listed}]}}");
    std::fs::write(&file, document("", &routes, middlewares)).expect("writable");
    goma(&["config", "check", "-c", &file.display().to_string()]).await
}

/// Scalars and keys as Goma's users write them.
#[tokio::test]
async fn rules_are_read_as_leniently_as_goma_reads_them_and_a_little_more() {
    for (about, middleware) in [
        ("keys in any case", "type: access, paths: [/a], rule: {STATUSCODE: 404}"),
        ("a quoted number", "type: access, paths: [/a], rule: {statusCode: '404'}"),
        ("a number for a text", "type: requestHeaders, rule: {setHeaders: {X-A: 5, X-B: true}}"),
        ("a number for a text in a list", "type: stripQuery, rule: {params: [1, true]}"),
        ("a null rule", "type: access, paths: [/a], rule: null"),
        ("an empty rule", "type: access, paths: [/a], rule: {}"),
        ("a null key", "type: access, paths: [/a], rule: {statusCode: null}"),
        ("a status below one", "type: access, paths: [/a], rule: {statusCode: 0}"),
        (
            "white space around an address",
            "type: accessPolicy, rule: {sourceRanges: [' 10.0.0.1 ', '10.1.0.0 - 10.1.0.9']}",
        ),
        ("an unknown key of a kind that guards nothing", "type: addPrefix, rule: {prefix: /a, colour: red}"),
        (
            "every name of an entry's status",
            "type: errorInterceptor, rule: {enabled: true, errors: [{statusCode: 404, code: 404, status: 404}]}",
        ),
        (
            "both names of a cookie's attributes",
            "type: responseHeaders, rule: {setCookies: [{name: a, value: b, attrs: {path: /}, attributes: {path: /}}]}",
        ),
    ] {
        let output = checked("m", &format!("- {{name: m, {middleware}}}")).await;
        assert!(output.succeeded(), "{about}: {}", output.all());
    }
}
