//! From the deployment that is signed to the one that is asked for.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::tz::TimeZone;
use mirabelle_content::durable;
use mirabelle_manifests::{
    Assignment, AssignmentMode, Audience, Catalogue, CatalogueEntry, Deployment, Holiday, Hours, Instant,
    PackageName, Platform, Track,
};
use mirabelle_terminal::{Failure, OrFail};

use super::edit;
use crate::cli::{Deploy, Deployable, For, NameAtVersion, When};
use crate::policy::{Calendar, MAX_POLICY_BYTES, read};

/// The new deployment, and what the change is called.
pub(super) fn change(
    arguments: &Deploy,
    before: &Deployment,
    catalogue: &Catalogue,
    now: Instant,
) -> Result<(String, Deployment), Failure> {
    let to = || audience(&arguments.to);
    let (subject, new) = if let Some(file) = &arguments.policy {
        (format!("`{}`", file.display()), policy(file)?)
    } else if arguments.edit {
        ("what was edited".to_owned(), edit::edit(before)?)
    } else if let Some(file) = &arguments.holidays {
        let (holidays, to) =
            (Calendar::read(file)?.holidays().map_err(|error| refused(file, &error))?, to()?);
        (format!("the holidays of `{}`", file.display()), with_holidays(before, to, holidays, now))
    } else if let Some(file) = &arguments.lessons {
        (format!("the lessons of `{}`", file.display()), with_lessons(before, to()?, file, now)?)
    } else if let Some(release) = &arguments.release {
        let line = assignment(arguments, release, before, catalogue, now)?;
        let subject = match release {
            Deployable::Release(release) => format!("`{} {}` to {}", release.name, release.version, line.to),
            Deployable::Package(package) => format!("`{package}` to {}", line.to),
        };
        let mut new = before.clone();
        new.assign(line);
        (subject, new)
    } else {
        return Err(Failure::usage("nothing to deploy"));
    };
    // A slip of the operator's, where the same in what somebody published would be a matter of trust.
    let new =
        new.checked().map_err(|error| Failure::usage(format!("cannot change the deployment: {error}")))?;
    Ok((subject, new))
}

fn refused(file: &Path, error: &crate::policy::CalendarError) -> Failure {
    Failure::usage(format!("cannot take the calendar `{}`: {error}", file.display()))
}

fn policy(file: &Path) -> Result<Deployment, Failure> {
    let what = || format!("cannot read the policy `{}`", file.display());
    let bytes = durable::read_if_present(file, MAX_POLICY_BYTES).or_fail(what)?;
    let bytes = bytes.ok_or_else(|| Failure::usage(format!("`{}` does not exist", file.display())))?;
    let text =
        String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{}: it is not UTF-8", what())))?;
    read(&text).or_fail(what)
}

/// The audience that the flags draw.
fn audience(to: &For) -> Result<Audience, Failure> {
    let all = to.colleges.iter().any(|code| code.as_str() == "all");
    if all && to.colleges.len() > 1 {
        return Err(Failure::usage("`all` colleges leaves no others to name"));
    }
    Ok(Audience {
        colleges: if all { BTreeSet::new() } else { to.colleges.iter().cloned().collect() },
        groups: to.groups.iter().cloned().collect(),
        machines: to.machines.iter().cloned().collect(),
        models: to.models.iter().cloned().collect(),
        platforms: to.platforms.iter().cloned().collect(),
        rooms: to.rooms.iter().cloned().collect(),
        tags: to.tags.iter().cloned().collect(),
    })
}

/// The line that the flags ask for.
fn assignment(
    arguments: &Deploy,
    release: &Deployable,
    before: &Deployment,
    catalogue: &Catalogue,
    now: Instant,
) -> Result<Assignment, Failure> {
    let mode = mode(arguments);
    let mut to = audience(&arguments.to)?;
    if to == Audience::everyone() && arguments.to.colleges.is_empty() {
        return Err(Failure::usage("for whom?").hint(
            "`--colleges 57001,57002`, `--colleges all`, or --rooms, --tags, --models, --machines, --groups, --platforms",
        ));
    }
    let zone = zone(before);
    let instant = |when: Option<When>| match when {
        None => Ok(None),
        Some(when) => {
            when.instant(&zone).map(Some).ok_or_else(|| Failure::usage(format!("{when} is out of reach")))
        }
    };
    let (package, track) = match release {
        Deployable::Package(package) => {
            if mode.gives() && !arguments.newest {
                return Err(Failure::usage(format!("which release of `{package}`?"))
                    .hint("`NAME@VERSION` pins one; --newest follows the newest that is approved"));
            }
            if arguments.until.is_some() {
                return Err(Failure::usage("only a pin ends: name the release as `NAME@VERSION`"));
            }
            known(catalogue, package, mode, arguments.platform.as_ref(), &mut to)?;
            (package.clone(), Track::Newest)
        }
        Deployable::Release(_) if arguments.newest || !mode.gives() => {
            let what =
                if arguments.newest { "--newest follows".to_owned() } else { format!("{mode} is said of") };
            return Err(Failure::usage(format!(
                "{what} the package, not one release: name it without its version"
            )));
        }
        Deployable::Release(release) => {
            let entry = pinned(catalogue, release, arguments.platform.as_ref(), &mut to)?;
            let until = instant(arguments.until)?;
            let (sequence, version) = (entry.listing.sequence, entry.listing.version.clone());
            (entry.listing.name.clone(), Track::Pinned { sequence, until, version })
        }
    };
    Ok(Assignment {
        deadline: instant(arguments.deadline)?,
        mode,
        package,
        rollout: arguments.rollout.clone(),
        since: Some(now),
        to,
        track,
    })
}

fn mode(arguments: &Deploy) -> AssignmentMode {
    let asked = [
        (arguments.available, AssignmentMode::Available),
        (arguments.available_to_teachers, AssignmentMode::AvailableToTeachers),
        (arguments.blocked, AssignmentMode::Blocked),
        (arguments.removed, AssignmentMode::Removed),
    ];
    asked.into_iter().find(|(asked, _)| *asked).map_or(AssignmentMode::Required, |(_, mode)| mode)
}

/// Refuses to follow the newest of what has no release; whoever names a platform means the workstations of that one.
fn known(
    catalogue: &Catalogue,
    package: &PackageName,
    mode: AssignmentMode,
    platform: Option<&Platform>,
    to: &mut Audience,
) -> Result<(), Failure> {
    let platforms = catalogue.platforms(package);
    let fits = |known: &&Platform| platform.is_none_or(|platform| **known == *platform);
    if mode.gives() && !platforms.iter().any(fits) {
        return Err(Failure::no(format!("no release of `{package}` is approved"))
            .hint("`mirabelle-publisher status` says what waits for whom"));
    }
    to.platforms.extend(platform.filter(|platform| **platform != Platform::any()).cloned());
    Ok(())
}

/// The approved release with this version, for the platforms that are meant; who it is for is drawn to them.
fn pinned<'a>(
    catalogue: &'a Catalogue,
    release: &NameAtVersion,
    platform: Option<&Platform>,
    to: &mut Audience,
) -> Result<&'a CatalogueEntry, Failure> {
    let found: Vec<&CatalogueEntry> = catalogue
        .iter()
        .filter(|entry| {
            let listing = &entry.listing;
            listing.name == release.name
                && listing.version == release.version
                && platform.is_none_or(|platform| listing.platform == *platform)
                && (to.platforms.is_empty()
                    || to.platforms.iter().any(|system| listing.platform.runs_on(system)))
        })
        .collect();
    let Some(first) = found.first() else {
        return Err(Failure::no(format!("`{release}` is not approved"))
            .hint("`mirabelle-publisher status` says what waits for whom"));
    };
    let several = || {
        Failure::usage(format!("`{release}` is approved for several platforms"))
            .hint("name one with --platform")
    };
    // One line pins one sequence: several platforms share it only where they are named, and where it is the same.
    let same = found.iter().all(|entry| entry.listing.sequence == first.listing.sequence);
    if found.len() > 1 && (to.platforms.is_empty() || !same) {
        return Err(several());
    }
    if first.listing.platform != Platform::any() && to.platforms.is_empty() {
        to.platforms.insert(first.listing.platform.clone());
    }
    Ok(first)
}

/// The clocks that the deployment gives everyone.
fn zone(deployment: &Deployment) -> TimeZone {
    let everyone = deployment.hours.iter().filter(|hours| hours.to == Audience::everyone());
    let name = everyone.filter_map(|hours| hours.time_zone.as_deref()).next_back();
    name.and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC)
}

/// The hours of exactly this audience: those that count last, or new ones.
fn hours_of(deployment: &mut Deployment, to: Audience) -> &mut Hours {
    let at = deployment.hours.iter().rposition(|hours| hours.to == to).unwrap_or_else(|| {
        deployment.hours.push(Hours { to, ..Hours::default() });
        deployment.hours.len() - 1
    });
    &mut deployment.hours[at]
}

fn with_holidays(before: &Deployment, to: Audience, new: Vec<Holiday>, now: Instant) -> Deployment {
    let mut deployment = before.clone();
    let today = now.to_zoned_datetime(zone(before)).date();
    let hours = hours_of(&mut deployment, to);
    let mut holidays = hours.holidays.take().unwrap_or_default();
    // The same days again are the same holidays, under their newer name.
    holidays.retain(|known| !new.iter().any(|holiday| (holiday.from, holiday.to) == (known.from, known.to)));
    holidays.extend(new);
    holidays.retain(|holiday| holiday.to >= today);
    holidays.sort_by_key(|holiday| (holiday.from, holiday.to));
    hours.holidays = Some(holidays);
    deployment
}

fn with_lessons(before: &Deployment, to: Audience, file: &Path, now: Instant) -> Result<Deployment, Failure> {
    let lessons = Calendar::read(file)?.lessons(now).map_err(|error| refused(file, &error))?;
    let mut deployment = before.clone();
    let hours = hours_of(&mut deployment, to);
    match (&hours.time_zone, lessons.zone) {
        (Some(known), Some(zone)) if *known != zone => {
            return Err(Failure::usage(format!(
                "cannot take the calendar `{}`: it is in the time zone {zone}, and {} in {known}",
                file.display(),
                hours.to
            )));
        }
        (None, Some(zone)) => hours.time_zone = Some(zone),
        _ => {}
    }
    hours.lessons = Some(lessons.spans);
    Ok(deployment)
}
