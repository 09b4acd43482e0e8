//! The process as the kernel sees it: CPU, memory, descriptors, threads. Linux only; elsewhere nothing is shown.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::page::Samples;
use super::table::{self, Declared};

/// Reads `/proc/self` whenever the metrics page is asked for.
pub(super) struct Process {
    descs: Vec<Desc>,
}

impl Process {
    pub fn new() -> Process {
        let shown = [
            &table::CPU,
            &table::STARTED,
            &table::RESIDENT,
            &table::VIRTUAL,
            &table::THREADS,
            &table::OPEN_FDS,
            &table::MAX_FDS,
        ];
        Process { descs: Declared::descs(&shown) }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut samples = Samples::default();
        times(&mut samples);
        memory(&mut samples);
        descriptors(&mut samples);
        samples.families()
    }
}

/// CPU time and start, from `/proc/self/stat`: fields 14, 15 and 22 in clock ticks (proc(5)).
fn times(samples: &mut Samples) -> Option<()> {
    let stat = read("/proc/self/stat")?;
    // The second field is the command in brackets and may itself hold spaces and brackets.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let tick = 1.0 / TICKS_PER_SECOND;
    samples.total(&table::CPU, (ticks(14)? + ticks(15)?) * tick);
    let boot = value(&read("/proc/stat")?, "btime")?;
    samples.gauge(&table::STARTED, boot + ticks(22)? * tick);
    Some(())
}

/// `USER_HZ`, which Linux keeps at 100 on every architecture Rust's Linux targets have.
const TICKS_PER_SECOND: f64 = 100.0;

/// Sizes from `/proc/self/status`, which gives them in KiB.
fn memory(samples: &mut Samples) -> Option<()> {
    let status = read("/proc/self/status")?;
    samples.gauge(&table::RESIDENT, value(&status, "VmRSS:")? * 1024.0);
    samples.gauge(&table::VIRTUAL, value(&status, "VmSize:")? * 1024.0);
    samples.gauge(&table::THREADS, value(&status, "Threads:")?);
    Some(())
}

fn descriptors(samples: &mut Samples) -> Option<()> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    samples.gauge(&table::OPEN_FDS, open.saturating_sub(1) as f64); // without the one that reads the folder
    samples.gauge(&table::MAX_FDS, value(&read("/proc/self/limits")?, "Max open files")?);
    Some(())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The first number after `name` at the start of a line.
fn value(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_is_shown_with_plausible_figures() {
        let families = Process::new().collect();
        let shown = |name: &str| {
            let family = families.iter().find(|f| f.name() == name);
            let metric = &family.unwrap_or_else(|| panic!("{name} is missing")).get_metric()[0];
            metric.get_gauge().get_value().max(metric.get_counter().get_value())
        };
        assert!(shown("process_resident_memory_bytes") > 100_000.0);
        assert!(shown("process_virtual_memory_bytes") >= shown("process_resident_memory_bytes"));
        assert!(shown("process_open_fds") >= 3.0 && shown("process_open_fds") <= shown("process_max_fds"));
        assert!(shown("process_threads") >= 1.0);
        assert!(shown("process_cpu_seconds_total") >= 0.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - shown("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
    }
}
