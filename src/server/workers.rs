//! How many threads carry requests: as many CPUs as the process may use, not as many as the machine has.
//!
//! What may be used is the smaller of the affinity mask and the CPU quota of the control group, of which 1.5 CPUs count as two:
//! a thread that is held back now and then is better than half a CPU that nobody uses. A process with more threads than that is
//! stopped by the kernel for the rest of each period, which clients see as latency.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::Workers as Settings;

/// Threads and accepting tasks of the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workers {
    /// Threads that carry requests.
    pub threads: usize,
    /// Tasks that accept connections on each listening socket.
    pub acceptors: usize,
    why: Why,
}

/// What decided on the number of threads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Why {
    Configured,
    Affinity,
    Quota(f64),
}

impl Workers {
    /// For this machine.
    pub fn of_host(settings: &Settings) -> Workers {
        Workers::decide(settings, affinity(), Groups::of_process().quota())
    }

    fn decide(settings: &Settings, cpus: usize, quota: Option<f64>) -> Workers {
        let (threads, why) = match (settings.threads, quota.map(|quota| (round_up(quota), quota))) {
            (0, Some((threads, quota))) if threads < cpus => (threads, Why::Quota(quota)),
            (0, _) => (cpus.max(1), Why::Affinity),
            (asked, _) => (asked, Why::Configured),
        };
        let acceptors = match settings.acceptors {
            0 => threads.min(ACCEPTORS),
            asked => asked,
        };
        Workers { threads, acceptors, why }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Why::Configured => out.write_str("as configured"),
            Why::Affinity => out.write_str("one for each CPU"),
            Why::Quota(cpus) => write!(out, "by the CPU quota of the control group, {cpus} CPUs"),
        }
    }
}

/// Accepting tasks on a socket unless configured: more would only wake one another.
const ACCEPTORS: usize = 4;

fn round_up(cpus: f64) -> usize {
    // A quota is a quotient of two integers that are not negative.
    (cpus.ceil() as usize).max(1)
}

/// CPUs that the process may run on.
fn affinity() -> usize {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => set.count() as usize,
        // More CPUs than the mask of that call holds.
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Where the kernel tells of control groups.
struct Groups {
    /// `/proc/self/cgroup`: which ones the process is in.
    membership: String,
    /// `/sys/fs/cgroup`: where they are mounted.
    mount: PathBuf,
}

impl Groups {
    fn of_process() -> Groups {
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Groups { membership, mount: PathBuf::from("/sys/fs/cgroup") }
    }

    /// CPUs that the process may use, by the tightest of its groups; `None` without a limit.
    fn quota(&self) -> Option<f64> {
        let quotas = self.membership.lines().filter_map(|line| self.of_line(line));
        quotas.min_by(f64::total_cmp)
    }

    /// `0::/path` is version 2, `4:cpu,cpuacct:/path` the controller of version 1. See cgroups(7).
    fn of_line(&self, line: &str) -> Option<f64> {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        match controllers {
            "" => self.tightest(&["", "unified"], path, |folder| {
                quotient(&read(&folder.join("cpu.max"))?.replace(' ', "\n"))
            }),
            list if list.split(',').any(|name| name == "cpu") => self.tightest(&[list, "cpu"], path, |folder| {
                let quota = read(&folder.join("cpu.cfs_quota_us"))?;
                quotient(&format!("{quota}\n{}", read(&folder.join("cpu.cfs_period_us"))?))
            }),
            _ => None,
        }
    }

    /// The group and those above it, each of which may limit. In a container the path may name a folder that is only there
    /// outside of it; what is mounted at the top is then the container's own group.
    fn tightest(&self, mounts: &[&str], path: &str, quota: impl Fn(&Path) -> Option<f64>) -> Option<f64> {
        let path = Path::new(path.trim_start_matches('/'));
        let folders = mounts.iter().map(|mount| self.mount.join(mount));
        let folders = folders.flat_map(|mount| path.ancestors().map(move |at| mount.join(at)));
        folders.filter_map(|folder| quota(&folder)).min_by(f64::total_cmp)
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Quota and period, a line each. `max` and `-1` are no limit.
fn quotient(lines: &str) -> Option<f64> {
    let mut lines = lines.lines().map(str::parse::<u64>);
    let (quota, period) = (lines.next()?.ok()?, lines.next()?.ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(membership: &str, files: &[(&str, &str)]) -> Option<f64> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            std::fs::write(path, text).expect("writable");
        }
        Groups { membership: membership.to_owned(), mount: folder.path().to_owned() }.quota()
    }

    #[test]
    fn the_quota_is_that_of_the_tightest_group() {
        type Test<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Option<f64>);
        let table: [Test<'_>; 9] = [
            ("no group", "", &[], None),
            ("v2 in a container", "0::/\n", &[("cpu.max", "150000 100000\n")], Some(1.5)),
            ("v2 without a limit", "0::/\n", &[("cpu.max", "max 100000\n")], None),
            (
                "v2 of a service",
                "0::/system.slice/goma.service\n",
                &[("system.slice/goma.service/cpu.max", "50000 100000\n")],
                Some(0.5),
            ),
            (
                "v2, the slice is tighter",
                "0::/a/b\n",
                &[("a/cpu.max", "100000 100000"), ("a/b/cpu.max", "400000 100000")],
                Some(1.0),
            ),
            ("v2, the path of the host", "0::/docker/abc\n", &[("cpu.max", "200000 100000")], Some(2.0)),
            (
                "v1",
                "4:memory:/x\n3:cpu,cpuacct:/x\n",
                &[("cpu,cpuacct/x/cpu.cfs_quota_us", "300000\n"), ("cpu,cpuacct/x/cpu.cfs_period_us", "100000\n")],
                Some(3.0),
            ),
            (
                "v1 without a limit",
                "3:cpu:/\n",
                &[("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")],
                None,
            ),
            ("nonsense", "3:cpu\n0::/\n", &[("cpu.max", "much\n")], None),
        ];
        for (about, membership, files, expected) in table {
            assert_eq!(quota(membership, files), expected, "{about}");
        }
    }

    #[test]
    fn threads_follow_the_setting_then_the_quota_then_the_cpus() {
        let settings = |threads, acceptors| Settings { threads, acceptors };
        for (about, asked, cpus, quota, threads, acceptors) in [
            ("a setting", settings(3, 2), 64, Some(1.0), 3, 2),
            ("a part of a CPU", settings(0, 0), 64, Some(0.2), 1, 1),
            ("a CPU and a half", settings(0, 0), 64, Some(1.5), 2, 2),
            ("more than there are", settings(0, 0), 2, Some(8.0), 2, 2),
            ("no quota", settings(0, 0), 16, None, 16, 4),
        ] {
            let workers = Workers::decide(&asked, cpus, quota);
            assert_eq!((workers.threads, workers.acceptors), (threads, acceptors), "{about}");
        }
        assert!(Workers::of_host(&Settings::default()).threads >= 1);
    }
}
