//! Watched folders: whatever way a file changes there, the gateway notices by itself.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::world::*;

async fn watching(keys: &str) -> (Origin, Gateway) {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .gateway(keys)
        .file("extra/a.yml", &route("a", "first"))
        .file("aside/keep.yml", "routes: []\n")
        .await;
    (origin, gateway)
}

fn route(name: &str, to: &str) -> String {
    format!("routes: [{{name: {name}, path: /{name}, target: ORIGIN/{to}}}]\n")
}

async fn comes_to(gateway: &Gateway, origin: &Origin, path: &str, expected: &str) {
    eventually(&format!("{path} goes to {expected}"), async || {
        let reply = gateway.get(path).await;
        let taken = if reply.status == 200 { origin.last().target } else { reply.status.to_string() };
        (taken == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_kind_of_change_is_seen() {
    for keys in [
        "extraConfig: {directory: FOLDER/extra, watch: true}",
        "providers: {file: {enabled: true, directory: FOLDER/extra, watch: true}}",
    ] {
        let (origin, gateway) = watching(keys).await;
        comes_to(&gateway, &origin, "/a", "/first/a").await;

        gateway.write("extra/a.yml", &route("a", "written"));
        comes_to(&gateway, &origin, "/a", "/written/a").await;

        gateway.write("aside/new.yml", &route("a", "renamed"));
        fs::rename(gateway.file("aside/new.yml"), gateway.file("extra/a.yml")).expect("a rename");
        comes_to(&gateway, &origin, "/a", "/renamed/a").await;

        gateway.write("extra/b.yml", &route("b", "created"));
        comes_to(&gateway, &origin, "/b", "/created/b").await;

        gateway.write("extra/deep/er/c.yml", &route("c", "nested"));
        comes_to(&gateway, &origin, "/c", "/nested/c").await;

        fs::remove_file(gateway.file("extra/b.yml")).expect("a file");
        comes_to(&gateway, &origin, "/b", "404").await;
        comes_to(&gateway, &origin, "/a", "/renamed/a").await;
    }
}

#[tokio::test]
async fn a_symlink_swap_as_kubernetes_makes_it_is_seen() {
    let (origin, gateway) = watching("extraConfig: {directory: FOLDER/mounted, watch: true}").await;
    let version = |name: &str, to: &str| gateway.write(&format!("mounted/..{name}/a.yml"), &route("a", to));
    version("v1", "v1");
    let folder = gateway.file("mounted");
    point(&folder, "..v1");
    symlink("..data/a.yml", folder.join("a.yml")).expect("a link");
    comes_to(&gateway, &origin, "/a", "/v1/a").await;
    version("v2", "v2");
    point(&folder, "..v2");
    comes_to(&gateway, &origin, "/a", "/v2/a").await;
}

/// Replaces the link `..data` at once, as the kubelet does.
fn point(folder: &Path, to: &str) {
    symlink(to, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("a rename");
}

#[tokio::test]
async fn a_broken_file_in_a_watched_folder_changes_nothing_until_it_is_mended() {
    let (origin, gateway) = watching("extraConfig: {directory: FOLDER/extra, watch: true}").await;
    comes_to(&gateway, &origin, "/a", "/first/a").await;
    let before = gateway.reloads().await;
    gateway.write("extra/b.yml", "routes: [{name: b, path: /b\n");
    assert_eq!(gateway.decides_after(before).await, Applied::Old);
    gateway.logs("b.yml").await;
    assert_eq!(gateway.get("/a").await.status, 200);
    gateway.write("extra/b.yml", &route("b", "mended"));
    comes_to(&gateway, &origin, "/b", "/mended/b").await;
}
