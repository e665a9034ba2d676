//! What a deployment says, in words: a sentence for everything that can change by itself.

use std::collections::BTreeMap;
use std::fmt::Display;

use mirabelle_manifests::{
    Assignment, AssignmentMode, Deployment, GroupName, Halt, Hours, Ring, Rollout, Span, Track, Values,
};

/// The lines that say what `new` changes against `before`.
pub(crate) fn changes(before: &Deployment, new: &Deployment) -> Vec<String> {
    let (was, is) = (sentences(before), sentences(new));
    let counts = |sentences: &[String]| {
        sentences.iter().fold(BTreeMap::<String, usize>::new(), |mut counts, sentence| {
            *counts.entry(sentence.clone()).or_default() += 1;
            counts
        })
    };
    let (had, has) = (counts(&was), counts(&is));
    let beyond = |sentences: &BTreeMap<String, usize>, others: &BTreeMap<String, usize>, word: &str| {
        let more = sentences.iter().filter(|(sentence, count)| others.get(*sentence) < Some(count));
        more.map(|(sentence, _)| format!("{word}: {sentence}")).collect::<Vec<_>>()
    };
    let mut lines = beyond(&had, &has, "no longer");
    lines.extend(beyond(&has, &had, "new"));
    if lines.is_empty() && was != is {
        // Of two lines that are equally close, the later counts.
        lines.push("the lines of the deployment come in another order".to_owned());
    }
    lines
}

/// Everything that a deployment says.
fn sentences(deployment: &Deployment) -> Vec<String> {
    let mut sentences: Vec<String> = deployment.assignments.iter().map(assignment).collect();
    sentences.extend(deployment.groups.iter().map(|(name, members)| format!("group `{name}` is {members}")));
    sentences.extend(deployment.rollouts.iter().map(|(name, rings)| rollout(name, rings)));
    sentences.extend(deployment.hours.iter().flat_map(hours));
    sentences.extend(deployment.values.iter().flat_map(values));
    sentences
}

/// One assignment: `ruff: release 3 (0.3) is required at college 57001`.
pub(crate) fn assignment(assignment: &Assignment) -> String {
    let Assignment { deadline, mode, package, rollout, since, to, track } = assignment;
    let mut words = vec![match mode {
        AssignmentMode::Blocked | AssignmentMode::Removed if *track == Track::Newest => {
            format!("{package} is {mode} at {to}")
        }
        _ => format!("{package}: {track} is {mode} at {to}"),
    }];
    words.extend(rollout.as_ref().map(|rollout| format!(", in the rings of `{rollout}`")));
    words.extend(deadline.map(|deadline| format!(", there until {deadline}")));
    words.extend(since.map(|since| format!(" (decided {since})")));
    words.concat()
}

fn rollout(name: &GroupName, rollout: &Rollout) -> String {
    let ring = |Ring { name, confirm, percent, soak_hours, to }: &Ring| {
        let confirmed = if *confirm { ", once an operator lets it go on" } else { "" };
        format!("`{name}`, {percent} in a hundred at {to}, the next {soak_hours} hours later{confirmed}")
    };
    let rings: Vec<String> = rollout.rings.iter().map(ring).collect();
    let halt = if rollout.halt == Halt::default() {
        String::new()
    } else {
        let Halt { percent, machines, silent_hours, success_percent } = rollout.halt;
        format!(
            "; it halts when {percent} in a hundred, and {machines}, failed or said nothing for {silent_hours} hours; the next ring opens \
             when it runs well on {success_percent} in a hundred"
        )
    };
    format!("rollout `{name}` has the rings {}{halt}", rings.join("; "))
}

fn hours(hours: &Hours) -> Vec<String> {
    let Hours { evening_minutes, holidays, idle_minutes, lessons, shutdown, time_zone, to, wake, windows } =
        hours;
    let mut sentences = Vec::new();
    let mut say = |sentence: String| sentences.push(format!("hours of {to}: {sentence}"));
    if let Some(zone) = time_zone {
        say(format!("the clocks are those of {zone}"));
    }
    let spans = |word: &str, spans: &Option<Vec<Span>>, say: &mut dyn FnMut(String)| match spans.as_deref() {
        None => {}
        Some([]) => say(format!("no {word} at all")),
        Some(spans) => {
            for Span { days, from, to } in spans {
                say(format!("{word} on {} from {from} to {to}", list(days)));
            }
        }
    };
    spans("lessons", lessons, &mut say);
    spans("windows", windows, &mut say);
    for (word, moments) in [("switched off", shutdown), ("woken", wake)] {
        match moments.as_deref() {
            None => {}
            Some([]) => say(format!("never {word}")),
            Some(moments) => {
                for moment in moments {
                    say(format!("{word} on {} at {}", list(&moment.days), moment.at));
                }
            }
        }
    }
    match holidays.as_deref() {
        None => {}
        Some([]) => say("no holidays".to_owned()),
        Some(holidays) => {
            for holiday in holidays {
                say(format!("holidays from {} to {} ({})", holiday.from, holiday.to, holiday.name));
            }
        }
    }
    if let Some(minutes) = evening_minutes {
        say(format!("the evening begins {minutes} minutes before the hour"));
    }
    if let Some(minutes) = idle_minutes {
        say(format!("after {minutes} minutes without a touch nobody is working"));
    }
    sentences
}

fn values(values: &Values) -> Vec<String> {
    let Values { to, values } = values;
    values.iter().map(|(name, value)| format!("value `{name}` at {to} is \"{value}\"")).collect()
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(json: &str) -> Deployment {
        Deployment::parse(format!(r#"{{"_type":"deployment",{json}}}"#).as_bytes()).unwrap()
    }

    const EVERYTHING: &str = r#""assignments":[
        {"mode":"required","package":"geogebra","rollout":"careful","to":{"groups":["exams"]},
         "deadline":"2026-09-15T18:00:00Z","since":"2026-09-01T06:00:00Z","track":"newest"},
        {"mode":"available-to-teachers","package":"ruff","to":{"colleges":["57001"],"rooms":["B12"]},
         "track":{"pinned":{"sequence":3,"version":"0.3","until":"2027-07-01T00:00:00Z"}}},
        {"mode":"blocked","package":"games"}],
        "groups":{"exams":{"tags":["exam"]}},
        "hours":[{"to":{"colleges":["57001"]},"time-zone":"Europe/Paris","evening-minutes":30,"idle-minutes":20,
          "lessons":[{"days":["mon","tue"],"from":"08:00","to":"12:00"}],"windows":[],
          "shutdown":[{"days":["wed"],"at":"12:30"}],"wake":[],
          "holidays":[{"from":"2026-10-17","to":"2026-11-01","name":"Toussaint"}]}],
        "rollouts":{"careful":{"rings":[{"name":"first","percent":5,"soak-hours":24,"to":{"rooms":["B12"]}},
          {"name":"second","percent":30,"soak-hours":48}]}},
        "values":[{"to":{"colleges":["57001"]},"values":{"proxy":"http://p:3128"}}]"#;

    #[test]
    fn everything_that_a_deployment_says_is_put_into_words() {
        let lines = changes(&Deployment::default(), &deployment(EVERYTHING));
        assert_eq!(
            lines,
            [
                "new: games is blocked at all colleges",
                "new: geogebra: the newest release is required at group exams, in the rings of `careful`, there until 2026-09-15T18:00:00Z (decided 2026-09-01T06:00:00Z)",
                "new: group `exams` is tag exam",
                "new: hours of college 57001: after 20 minutes without a touch nobody is working",
                "new: hours of college 57001: holidays from 2026-10-17 to 2026-11-01 (Toussaint)",
                "new: hours of college 57001: lessons on mon, tue from 08:00 to 12:00",
                "new: hours of college 57001: never woken",
                "new: hours of college 57001: no windows at all",
                "new: hours of college 57001: switched off on wed at 12:30",
                "new: hours of college 57001: the clocks are those of Europe/Paris",
                "new: hours of college 57001: the evening begins 30 minutes before the hour",
                "new: rollout `careful` has the rings `first`, 5 in a hundred at room B12, the next 24 hours later; `second`, 30 in a hundred at all colleges, the next 48 hours later",
                "new: ruff: release 3 (0.3) until 2027-07-01T00:00:00Z is available to teachers at room B12; college 57001",
                "new: value `proxy` at college 57001 is \"http://p:3128\"",
            ]
        );
        let gone = changes(&deployment(EVERYTHING), &Deployment::default());
        assert_eq!(gone.len(), lines.len());
        assert!(gone.iter().all(|line| line.starts_with("no longer: ")));
    }

    /// Whatever member of the document changes, somebody who signs it reads of it.
    #[test]
    fn no_member_changes_in_silence() {
        let before = deployment(EVERYTHING);
        for (from, to) in [
            (r#""mode":"required""#, r#""mode":"removed""#),
            (r#","rollout":"careful""#, ""),
            ("2026-09-15T18:00:00Z", "2026-09-15T18:00:00.5Z"),
            ("2026-09-01", "2026-09-02"),
            (r#""sequence":3"#, r#""sequence":4"#),
            (r#""version":"0.3""#, r#""version":"0.4""#),
            ("2027-07-01T00:00:00Z", "2027-07-01T00:00:01Z"),
            (r#"{"tags":["exam"]}"#, r#"{"tags":["exam"],"platforms":["any"]}"#),
            ("\"tue\"", "\"sat\""),
            ("12:00", "12:05"),
            (r#""windows":[],"#, ""),
            (r#""wake":[],"#, ""),
            ("Toussaint", "Carnaval"),
            ("2026-10-17", "2026-10-16"),
            (r#""idle-minutes":20"#, r#""idle-minutes":2"#),
            (r#""evening-minutes":30"#, r#""evening-minutes":3"#),
            ("Europe/Paris", "UTC"),
            (r#""percent":5"#, r#""percent":6"#),
            (r#""soak-hours":48"#, r#""soak-hours":47"#),
            (r#""name":"second""#, r#""name":"last""#),
            ("http://p:3128", "http://q:3128"),
            (r#"{"mode":"blocked","package":"games"}"#, r#"{"mode":"blocked","package":"toys"}"#),
        ] {
            let changed = EVERYTHING.replacen(from, to, 1);
            assert_ne!(changed, EVERYTHING, "{from}");
            assert!(!changes(&before, &deployment(&changed)).is_empty(), "{from}");
        }
        let mut other = before.clone();
        other.assignments.reverse();
        assert_eq!(changes(&before, &other), ["the lines of the deployment come in another order"]);
        assert!(changes(&before, &before).is_empty());
    }
}
