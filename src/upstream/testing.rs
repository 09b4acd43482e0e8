//! Helpers of this module's tests.

use std::time::Duration;

/// Waits until a condition holds; a test that waits ten seconds has failed.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}
