//! What a workstation's decision costs: of packages that have nothing to do with each other, of packages that require one
//! another, and of packages of which some do not go together.

use std::fmt::Write as _;
use std::time::Instant as Clock;

use clap::Args;
use mirabelle_manifests::tuf::{TargetFile, Targets};
use mirabelle_manifests::{
    Assignment, AssignmentMode, Audience, Brake, Catalogue, Custom, Deployment, Instant, Listing, Machine,
    MachineState, Platform, Relation, Situation, Text, Track, release_target,
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Packages that are deployed.
    #[arg(long, default_value_t = 500)]
    packages: u64,
    /// Decisions of which the median is taken.
    #[arg(long, default_value_t = 100)]
    runs: usize,
}

/// What releases say about each other.
#[derive(Clone, Copy, Debug)]
enum Relations {
    None,
    /// One requires another: everything is solved together.
    One,
    /// Each requires the next one.
    Chain,
    /// As `Chain`, and of every hundred one conflicts with the next.
    Conflicts,
}

pub(crate) fn run(arguments: &Arguments) {
    let machine = Machine {
        college: "57001".parse().unwrap(),
        id: "b12-03".parse().unwrap(),
        model: None,
        platform: Platform::current(),
        room: None,
        tags: [].into(),
    };
    let (brake, state, now) = (Brake::default(), MachineState::default(), Instant::now());
    let deployment = deployment(arguments.packages);
    let mut result = String::from("result:");
    for (name, relations) in [
        ("apart", Relations::None),
        ("one", Relations::One),
        ("chain", Relations::Chain),
        ("conflicts", Relations::Conflicts),
    ] {
        let catalogue = catalogue(arguments.packages, relations);
        let situation = Situation {
            catalogue: &catalogue,
            deployment: &deployment,
            brake: &brake,
            machine: &machine,
            state: &state,
            now,
        };
        let mut times: Vec<f64> = (0..arguments.runs.max(1))
            .map(|_| {
                let clock = Clock::now();
                let decisions = situation.decide();
                assert!(decisions.len() as u64 >= arguments.packages);
                clock.elapsed().as_secs_f64() * 1000.0
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        println!("{name:<12}{median:>8.2} ms for {} packages, median of {}", arguments.packages, times.len());
        let _ = write!(result, " {name}_ms={median:.2}");
    }
    println!("{result}");
}

fn deployment(packages: u64) -> Deployment {
    let assignment = |number: u64| Assignment {
        deadline: None,
        mode: AssignmentMode::Required,
        package: format!("package-{number}").parse().unwrap(),
        rollout: None,
        since: None,
        to: Audience::everyone(),
        track: Track::Newest,
    };
    Deployment::new((0..packages).map(assignment).collect()).unwrap()
}

fn catalogue(packages: u64, relations: Relations) -> Catalogue {
    let mut role = Targets::new(1, "2030-01-01T00:00:00Z".parse().unwrap());
    for number in 0..packages {
        let next = Relation {
            package: format!("package-{}", (number + 1) % packages).parse().unwrap(),
            at_least: None,
            at_most: None,
        };
        let odd = matches!(relations, Relations::Conflicts) && number % 100 == 0;
        let requires = match relations {
            Relations::One => number == 0,
            Relations::Chain | Relations::Conflicts => !odd,
            Relations::None => false,
        };
        let requires = if requires { vec![next.clone()] } else { vec![] };
        for sequence in 1..=3 {
            let text = Text { fr: "x".into(), en: "x".into() };
            let listing = Listing {
                categories: vec![],
                conflicts: if odd { vec![next.clone()] } else { vec![] },
                download_size: 1,
                installed_size: 1,
                licence: "MIT".into(),
                name: format!("package-{number}").parse().unwrap(),
                platform: Platform::any(),
                requires: requires.clone(),
                sequence,
                showcase: None,
                summary: text.clone(),
                title: text,
                version: format!("1.{sequence}").parse().unwrap(),
            };
            let path = release_target(&listing.name, &listing.version, &listing.platform);
            let custom = serde_json::to_value(Custom { approved: None, listing }).unwrap();
            role.targets.insert(path.clone(), TargetFile::of(path.as_str().as_bytes(), Some(custom)));
        }
    }
    Catalogue::read(&role).unwrap()
}
