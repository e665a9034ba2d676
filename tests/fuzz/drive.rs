//! The loop: corpus, then mutations until the time is over; what breaks a promise is kept as a file.

use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use mirabelle_manifests::Digest;

use crate::mutate::{Random, mutated};

/// How long a target runs, in seconds, unless the environment says otherwise: next to nothing, in every `cargo test`.
const SECONDS: u64 = 1;
/// Inputs are no longer than this: what is quadratic shows, what is linear stays quick.
const MAX_INPUT_BYTES: usize = 64 << 10;
/// No input takes longer, unoptimised, on a busy machine.
const MAX_TIME: Duration = Duration::from_secs(10);
/// All targets together have no more than this resident.
const MAX_RESIDENT_BYTES: u64 = 1 << 30;

/// A parser under test and where its mutations begin.
pub(crate) struct Target {
    name: &'static str,
    corpus: Vec<Vec<u8>>,
    max_time: Duration,
}

impl Target {
    /// With the corpus of this name, if there is one.
    pub(crate) fn new(name: &'static str) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<PathBuf> = match fs::read_dir(&directory) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        };
        files.sort();
        Self { name, corpus: files.iter().map(|file| fs::read(file).unwrap()).collect(), max_time: MAX_TIME }
    }

    /// With this input as well.
    pub(crate) fn with(mut self, input: Vec<u8>) -> Self {
        self.corpus.push(input);
        self
    }

    /// Where each input costs an encoder's hundreds of milliseconds even alone, and all targets share the machine.
    pub(crate) fn patiently(mut self) -> Self {
        self.max_time = 6 * MAX_TIME;
        self
    }

    /// Feeds `property`, which says whether it could parse, until the time is over.
    pub(crate) fn run(self, property: impl Fn(&[u8]) -> bool) {
        let seed = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let sound = self.corpus.iter().filter(|input| self.holds(&property, input, seed)).count();
        assert!(sound > 0, "{}: nothing in its corpus parses", self.name);
        let mut random = Random::new(seed);
        let seconds =
            std::env::var("MIRABELLE_FUZZ_SECONDS").ok().map_or(SECONDS, |text| text.parse().unwrap());
        let end = Instant::now() + Duration::from_secs(seconds);
        let (mut tried, mut parsed) = (0_u64, 0_u64);
        while Instant::now() < end {
            let mut input = mutated(&self.corpus, &mut random);
            input.truncate(MAX_INPUT_BYTES);
            parsed += u64::from(self.holds(&property, &input, seed));
            tried += 1;
        }
        // Mutations that never get past the parser would try nothing behind it; of a few, any may be in the way.
        assert!(
            tried < 5000 || parsed * 500 > tried,
            "{}: only {parsed} of {tried} inputs parsed",
            self.name
        );
        println!("{}: {tried} inputs in {seconds} s, {parsed} of them parsed", self.name);
        let resident = resident_peak();
        assert!(resident < MAX_RESIDENT_BYTES, "{}: {resident} bytes are resident", self.name);
    }

    /// Whether `input` parsed; a promise that it breaks ends the test.
    fn holds(&self, property: impl Fn(&[u8]) -> bool, input: &[u8], seed: u64) -> bool {
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| property(input)));
        let took = begun.elapsed();
        match outcome {
            Ok(parsed) if took < self.max_time => parsed,
            outcome => {
                let what = if outcome.is_err() { "panicked".to_owned() } else { format!("took {took:?}") };
                panic!("{} {what} (seed {seed}): see {}", self.name, self.keep(input).display())
            }
        }
    }

    fn keep(&self, input: &[u8]) -> PathBuf {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("fuzz");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{}-{}", self.name, &Digest::of(input).to_string()[..16]));
        fs::write(&path, input).unwrap();
        path
    }
}

/// The most memory that this process has had resident, where the system says so.
fn resident_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
