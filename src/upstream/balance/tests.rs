use super::super::matching::Match;
use super::super::matching::tests::Request;
use super::super::origin::tests::literal;
use super::super::peer::PeerTemplate;
use super::super::settings::{HashKey, Secure, Sticky, Transport};
use super::*;

/// A backend as a row of a table.
#[derive(Clone, Copy, Default)]
struct Row {
    weight: u32,
    /// Value of the header `X-B` that its rule wants.
    wants: Option<&'static str>,
    exclusive: bool,
    priority: i64,
    down: bool,
}

const fn weight(weight: u32) -> Row {
    Row { weight, wants: None, exclusive: false, priority: 0, down: false }
}

fn canary(value: &'static str) -> Row {
    Row { wants: Some(value), ..weight(0) }
}

fn backend(index: usize, row: &Row) -> Arc<Backend> {
    let port = 8000 + u16::try_from(index).unwrap();
    let endpoint = super::super::endpoint::Endpoint::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let origin = literal(([127, 0, 0, 1], port).into());
    let template = PeerTemplate::new(endpoint.scheme, &endpoint.host, None, &Transport::default());
    let rule = |value: &str| Match::parse("header", "X-B", "equals", value).0;
    if row.down {
        origin.failed_checks.store(1, Ordering::SeqCst);
    }
    Arc::new(Backend {
        name: endpoint.to_string(),
        endpoint,
        origin: Arc::new(origin),
        template: Arc::new(template),
        connect_timeout: std::time::Duration::from_secs(5),
        idle_timeout: None,
        check: None,
        guard: None,
        shared: None,
        rules: row.wants.map(rule).into_iter().collect(),
        weight: row.weight,
        exclusive: row.exclusive,
        priority: row.priority,
    })
}

fn upstream(rows: &[Row]) -> Upstream {
    with_algorithm(rows, Algorithm::Goma)
}

fn with_algorithm(rows: &[Row], algorithm: Algorithm) -> Upstream {
    let backends = rows.iter().enumerate();
    let backends: Vec<_> = backends.map(|(index, row)| backend(index, row)).collect();
    let sticky = Sticky { cookie: "stick".into(), secret: None, attributes: String::new(), secure: Secure::Never };
    let names = backends.iter().map(|backend| backend.name());
    let cookie = Some(Cookie::new(&sticky, b"key", "r", names));
    let balance = Balance { algorithm, ..Balance::default() };
    Upstream::new(backends, parts(balance, cookie))
}

fn parts(balance: Balance, cookie: Option<Cookie>) -> Parts {
    Parts { name: "r".into(), balance, cookie, retry: None, hedge: None, turn: Arc::default(), epoch: Arc::default() }
}

fn with_header(value: &'static str) -> Request {
    Request { header: Some(("X-B", value)), ..Request::default() }
}

/// Shares of the backends in 4,000 picks, in percent; one more row for "none".
fn shares(upstream: &Upstream, facts: &Request, tried: &Tried) -> Vec<usize> {
    let count = upstream.backends().len();
    let mut hits = vec![0_usize; count + 1];
    for _ in 0..4000 {
        let pick = upstream.pick(facts, tried);
        hits[pick.map_or(count, |pick| pick.index)] += 1;
    }
    hits.iter().map(|hits| (hits + 20) / 40).collect()
}

#[test]
fn requests_are_shared_as_configured() {
    let down = |row: Row| Row { down: true, ..row };
    let exclusive = |priority| Row { exclusive: true, priority, ..canary("1") };
    let with_weight = |weight, row: Row| Row { weight, ..row };
    // backends, header X-B, expected share of each in percent, then of "no backend"
    let rows: &[(&str, Vec<Row>, &'static str, &[usize])] = &[
        ("one takes all", vec![weight(0)], "", &[100, 0]),
        ("one takes all, even when down", vec![down(weight(0))], "", &[100, 0]),
        ("one takes all, whatever its rules", vec![canary("1")], "", &[100, 0]),
        ("round robin", vec![weight(0); 4], "", &[25, 25, 25, 25, 0]),
        ("round robin passes the dead over", vec![weight(0), down(weight(0)), weight(0)], "", &[50, 0, 50, 0]),
        ("round robin, all down", vec![down(weight(0)); 2], "", &[0, 0, 100]),
        ("weights", vec![weight(50), weight(20), weight(30)], "", &[50, 20, 30, 0]),
        ("weight 0 gets nothing", vec![weight(5), weight(0)], "", &[100, 0, 0]),
        ("weights of those that are up", vec![weight(80), down(weight(10)), weight(20)], "", &[80, 0, 20, 0]),
        ("weight 0 is no reserve", vec![down(weight(5)), weight(0)], "", &[0, 0, 100]),
        ("weights, all down", vec![down(weight(1)); 2], "", &[0, 0, 100]),
        ("exclusive takes what matches", vec![exclusive(0), weight(1)], "1", &[100, 0, 0]),
        ("exclusive gets nothing else", vec![exclusive(0), weight(1)], "2", &[0, 100, 0]),
        ("higher priority wins", vec![exclusive(1), exclusive(10), weight(1)], "1", &[0, 100, 0, 0]),
        ("equal priority: the first", vec![exclusive(3), exclusive(3), weight(1)], "1", &[100, 0, 0, 0]),
        ("negative priority is a priority", vec![exclusive(-5), weight(1)], "1", &[100, 0, 0]),
        ("exclusive down: the others", vec![down(exclusive(0)), weight(1)], "1", &[0, 100, 0]),
        (
            "exclusive without rules is stable",
            vec![Row { exclusive: true, ..weight(1) }, with_weight(1, canary("1"))],
            "1",
            &[50, 50, 0],
        ),
        ("shared canary", vec![with_weight(10, canary("1")), weight(90)], "1", &[10, 90, 0]),
        ("shared canary that does not match", vec![with_weight(10, canary("1")), weight(90)], "2", &[0, 100, 0]),
        ("stable without weight serves", vec![exclusive(0), weight(0), weight(0)], "2", &[0, 50, 50, 0]),
        ("a pool without weights is equal", vec![canary("1"), weight(0)], "1", &[50, 50, 0]),
        ("no stable backend and no match", vec![canary("1"), canary("2")], "3", &[0, 0, 100]),
        ("canary, all down", vec![down(canary("1")), down(weight(1))], "1", &[0, 0, 100]),
    ];
    for (what, backends, header, expected) in rows {
        let upstream = upstream(backends);
        let request = with_header(header);
        let shares = shares(&upstream, &request, &Tried::default());
        for (share, expected) in shares.iter().zip(*expected) {
            let exact = matches!(expected, 0 | 100);
            let close = if exact { share == expected } else { share.abs_diff(*expected) <= 4 };
            assert!(close, "{what}: {shares:?}");
        }
    }
}

#[test]
fn round_robin_goes_in_order_and_starts_with_the_second() {
    let upstream = upstream(&[weight(0); 3]);
    let pick = || upstream.pick(&Request::default(), &Tried::default()).unwrap().index;
    let order: Vec<_> = (0..6).map(|_| pick()).collect();
    assert_eq!(order, [1, 2, 0, 1, 2, 0]);
}

#[test]
fn a_tried_backend_is_passed_over() {
    let mut one = Tried::default();
    one.add(1);
    let mut both = one;
    both.add(0);
    let request = with_header("1");
    let exclusive = Row { exclusive: true, ..canary("1") };
    let rows = [
        ("round robin", vec![weight(0); 3], one, vec![50, 0, 50, 0]),
        ("weights", vec![weight(1), weight(98), weight(1)], one, vec![50, 0, 50, 0]),
        ("exclusive", vec![weight(1), exclusive], one, vec![100, 0, 0]),
        ("weight 0 stays out", vec![weight(0), weight(1)], one, vec![0, 0, 100]),
        ("none is left", vec![weight(0); 2], both, vec![0, 0, 100]),
        ("the only one, with one address", vec![weight(0)], both, vec![0, 100]),
    ];
    for (what, backends, tried, expected) in rows {
        let shares = shares(&upstream(&backends), &request, &tried);
        for (share, expected) in shares.iter().zip(&expected) {
            assert!(share.abs_diff(*expected) <= 4, "{what}: {shares:?}");
        }
    }
    let upstream = upstream(&[weight(0); 2]);
    let none = upstream.pick(&request, &both).err();
    assert_eq!(none, Some(NoBackend::Tried));
}

#[test]
fn a_change_of_health_is_seen_by_the_next_request() {
    for row in [weight(0), weight(1)] {
        let upstream = upstream(&[row; 2]);
        let request = Request::default();
        let failed = &upstream.backends()[0].origin.failed_checks;
        for (count, expected) in [(1, vec![0, 100, 0]), (0, vec![50, 50, 0])] {
            failed.store(count, Ordering::SeqCst);
            upstream.epoch.fetch_add(1, Ordering::SeqCst);
            let shares = shares(&upstream, &request, &Tried::default());
            for (share, expected) in shares.iter().zip(&expected) {
                assert!(share.abs_diff(*expected) <= 4, "{shares:?}");
            }
        }
    }
}

#[test]
fn a_pick_counts_as_in_flight_until_it_is_dropped() {
    let upstream = upstream(&[weight(0)]);
    let pick = upstream.pick(&Request::default(), &Tried::default()).unwrap();
    let backend = pick.backend.clone();
    assert_eq!(backend.in_flight(), 1);
    drop(pick);
    assert_eq!(backend.in_flight(), 0);
}

#[test]
fn candidates_are_those_that_a_pick_can_choose() {
    let exclusive = Row { exclusive: true, ..canary("1") };
    let rows = [
        (vec![weight(0); 2], "1", vec![0, 1]),
        (vec![weight(0), weight(3)], "1", vec![1]),
        (vec![exclusive, weight(0)], "1", vec![0]),
        (vec![exclusive, weight(0)], "2", vec![1]),
        (vec![canary("1"), weight(0)], "1", vec![0, 1]),
        (vec![canary("1"), weight(9)], "1", vec![1]),
        (vec![canary("1"), canary("2")], "3", vec![]),
    ];
    for (backends, header, expected) in rows {
        let upstream = upstream(&backends);
        let request = with_header(header);
        assert_eq!(upstream.candidates(&request), expected, "{header}");
        for _ in 0..50 {
            let pick = upstream.pick(&request, &Tried::default());
            assert!(pick.map_or(expected.is_empty(), |pick| expected.contains(&pick.index)));
        }
    }
}

#[test]
fn attempts_are_limited_by_backends_and_by_three() {
    for (count, expected) in [(1, 1), (2, 2), (3, 3), (9, 3)] {
        assert_eq!(upstream(&vec![weight(0); count]).attempts_limit(), expected);
    }
}

#[test]
fn every_algorithm_keeps_to_weights_rules_and_health() {
    let down = |row: Row| Row { down: true, ..row };
    let exclusive = Row { exclusive: true, ..canary("1") };
    let rows: &[(Vec<Row>, &'static str, &[usize])] = &[
        (vec![weight(0); 4], "", &[25, 25, 25, 25, 0]),
        (vec![weight(0), down(weight(0)), weight(0)], "", &[50, 0, 50, 0]),
        (vec![weight(50), weight(20), weight(30)], "", &[50, 20, 30, 0]),
        (vec![weight(5), weight(0)], "", &[100, 0, 0]),
        (vec![down(weight(5)), weight(0)], "", &[0, 0, 100]),
        (vec![exclusive, weight(1)], "1", &[100, 0, 0]),
        (vec![exclusive, weight(1)], "2", &[0, 100, 0]),
        (vec![Row { weight: 25, ..canary("1") }, weight(75)], "1", &[25, 75, 0]),
        (vec![Row { weight: 25, ..canary("1") }, weight(75)], "2", &[0, 100, 0]),
        (vec![canary("1"), weight(0)], "1", &[50, 50, 0]),
    ];
    for algorithm in [Algorithm::RoundRobin, Algorithm::Random] {
        for (backends, header, expected) in rows {
            let upstream = with_algorithm(backends, algorithm.clone());
            let shares = shares(&upstream, &with_header(header), &Tried::default());
            for (share, expected) in shares.iter().zip(*expected) {
                let exact = algorithm == Algorithm::RoundRobin || matches!(expected, 0 | 100);
                let close = if exact { share == expected } else { share.abs_diff(*expected) <= 4 };
                assert!(close, "{algorithm:?} {header}: {shares:?}, not {expected}");
            }
        }
    }
    for algorithm in [Algorithm::LeastRequests, Algorithm::ConsistentHash(HashKey::Header("X-B".into()))] {
        for (backends, header, expected) in rows {
            let upstream = with_algorithm(backends, algorithm.clone());
            let shares = shares(&upstream, &with_header(header), &Tried::default());
            for (share, expected) in shares.iter().zip(*expected) {
                assert!(*expected > 0 || *share == 0, "{algorithm:?} {header}: {shares:?} goes where nothing may");
            }
            assert_eq!(
                upstream.pick(&with_header(header), &Tried::default()).is_err(),
                expected[backends.len()] == 100
            );
        }
    }
}

#[test]
fn turns_of_unequal_weights_are_scattered() {
    let upstream = with_algorithm(&[weight(5), weight(1), weight(2)], Algorithm::RoundRobin);
    let order: Vec<_> = (0..16).map(|_| upstream.pick(&Request::default(), &Tried::default()).unwrap().index).collect();
    assert!(!order.windows(4).any(|four| four == [0, 0, 0, 0]), "{order:?}");
}

#[test]
fn the_less_busy_of_two_is_taken() {
    let upstream = with_algorithm(&[weight(0); 2], Algorithm::LeastRequests);
    let pick = || upstream.pick(&Request::default(), &Tried::default()).unwrap();
    let held: Vec<_> = (0..20).map(|_| pick()).collect();
    let ones = held.iter().filter(|pick| pick.index == 1).count();
    assert_eq!(ones, 10, "of two, each request goes to the one with less");
    let weighted = with_algorithm(&[weight(3), weight(1)], Algorithm::LeastRequests);
    let held: Vec<_> = (0..400).map(|_| weighted.pick(&Request::default(), &Tried::default()).unwrap()).collect();
    let ones = held.iter().filter(|pick| pick.index == 1).count();
    assert!((95..=105).contains(&ones), "a quarter of 400, not {ones}");
}

#[test]
fn a_busy_backend_of_many_gets_little() {
    let upstream = with_algorithm(&[weight(0); 10], Algorithm::LeastRequests);
    upstream.backends()[3].origin.in_flight.store(1000, Ordering::SeqCst);
    let shares = shares(&upstream, &Request::default(), &Tried::default());
    assert_eq!(shares[3], 0, "it never wins against another: {shares:?}");
}

#[test]
fn equal_facts_lead_to_the_same_backend() {
    let upstream = with_algorithm(&[weight(0); 3], Algorithm::ConsistentHash(HashKey::Header("X-B".into())));
    let home = |value: &'static str| upstream.pick(&with_header(value), &Tried::default()).unwrap().index;
    for value in ["a", "b", "c", "d", "e", "f", "g"] {
        let first = home(value);
        assert!((0..5).all(|_| home(value) == first), "{value}");
        assert_eq!(upstream.leads(&with_header(value)), Some((first, Leads::Hash)));
        let mut tried = Tried::default();
        tried.add(first);
        assert_ne!(upstream.pick(&with_header(value), &tried).unwrap().index, first, "tried: the next on the ring");
    }
    // Without the header the address counts, which is one here.
    let first = upstream.pick(&Request::default(), &Tried::default()).unwrap().index;
    assert!((0..5).all(|_| upstream.pick(&Request::default(), &Tried::default()).unwrap().index == first));
}

#[test]
fn a_cookie_keeps_a_client_where_it_is_while_that_is_up_and_allowed() {
    let code = |upstream: &Upstream, index| {
        let set = upstream.keep(index, &Request::default(), false).unwrap();
        let code: &'static str = set.strip_prefix("stick=").unwrap().to_owned().leak();
        code
    };
    let with_cookie =
        |value: &'static str, header: &'static str| Request { cookie: Some(("stick", value)), ..with_header(header) };
    let pick = |upstream: &Upstream, request: &Request| upstream.pick(request, &Tried::default()).unwrap().index;

    let three = with_algorithm(&[weight(0); 3], Algorithm::LeastRequests);
    let request = with_cookie(code(&three, 2), "");
    assert!((0..20).all(|_| pick(&three, &request) == 2));
    assert_eq!(three.leads(&request), Some((2, Leads::Cookie)));
    assert_eq!(three.keep(2, &request, false), None, "it has the cookie");
    assert!(three.keep(1, &request, false).is_some(), "another one served it");
    three.backends()[2].origin.failed_checks.store(1, Ordering::SeqCst);
    three.epoch.fetch_add(1, Ordering::SeqCst);
    assert!((0..20).all(|_| pick(&three, &request) != 2), "down: another one");

    let weighted = upstream(&[weight(1), weight(0)]);
    let request = with_cookie(code(&weighted, 1), "");
    assert!((0..20).all(|_| pick(&weighted, &request) == 0), "weight 0 takes nothing, not even old clients");

    let exclusive = Row { exclusive: true, ..canary("1") };
    let upstream = upstream(&[weight(1), exclusive, Row { weight: 1, ..canary("2") }]);
    assert!((0..20).all(|_| pick(&upstream, &with_cookie(code(&upstream, 0), "1")) == 1), "exclusive goes first");
    assert!((0..20).all(|_| pick(&upstream, &with_cookie(code(&upstream, 1), "2")) != 1), "its rules do not hold");
    assert!((0..20).all(|_| pick(&upstream, &with_cookie(code(&upstream, 2), "2")) == 2), "its rules hold");
    assert!((0..20).all(|_| pick(&upstream, &with_cookie(code(&upstream, 2), "3")) == 0), "its rules hold no more");
}

#[test]
fn a_request_that_is_tried_again_takes_no_turn_of_another() {
    for algorithm in [Algorithm::Goma, Algorithm::RoundRobin] {
        let upstream = with_algorithm(&[weight(0), weight(0)], algorithm);
        let facts = Request::default();
        let mut firsts = [0; 2];
        for _ in 0..10 {
            let first = upstream.pick(&facts, &Tried::default()).unwrap().index;
            let mut tried = Tried::default();
            tried.add(first);
            assert_eq!(upstream.pick(&facts, &tried).unwrap().index, 1 - first);
            firsts[first] += 1;
        }
        assert_eq!(firsts, [5, 5]);
    }
}
