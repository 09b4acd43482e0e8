use super::*;

fn country(database: &Database) -> Option<String> {
    database.country("203.0.113.7".parse().expect("an address")).map(|country| country.to_string())
}

#[test]
fn a_new_file_takes_the_place_of_the_old_one_and_a_broken_one_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("country.mmdb");
    let geo = GeoIp::default();
    let database = geo.database(path.to_str().expect("a path"));
    assert!(database.trouble().is_some_and(|trouble| trouble.contains("country.mmdb: No such file")));
    let refreshed = || {
        geo.refresh();
        geo.refresh();
        country(&database)
    };
    std::fs::write(&path, writer::mmdb(&[("203.0.113.0/24", "DE")])).expect("written");
    assert_eq!(refreshed().as_deref(), Some("DE"), "it came later");
    assert_eq!(database.trouble(), None);
    std::fs::write(&path, b"half a file").expect("written");
    assert_eq!(refreshed().as_deref(), Some("DE"), "the old one stays");
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(refreshed().as_deref(), Some("DE"), "the old one stays");
    std::fs::write(&path, writer::mmdb(&[("203.0.113.0/24", "FR")])).expect("written");
    assert_eq!(refreshed().as_deref(), Some("FR"));
}

#[test]
fn whoever_asks_for_a_file_gets_the_same_database_and_it_goes_with_the_last_of_them() {
    let geo = GeoIp::default();
    let (one, other) = (geo.database("/nowhere/a.mmdb"), geo.database("/nowhere/b.mmdb"));
    assert!(Arc::ptr_eq(&one, &geo.database("/nowhere/a.mmdb")) && !Arc::ptr_eq(&one, &other));
    drop((one, other));
    geo.refresh();
    assert!(geo.databases.lock().expect("not poisoned").is_empty());
}
