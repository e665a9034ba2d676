//! What a year comes to, added up by college and day as reports come.

use mirabelle_fleet::{Event, Power, Report};
use mirabelle_keys::KeyId;
use mirabelle_manifests::{Instant, SiteId};
use sqlx::Row;

use super::{Error, State, Transaction};

const DAY: i64 = 24 * 60 * 60;

/// So many of something on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Daily {
    pub(crate) college: String,
    /// Days since 1970, UTC.
    pub(crate) day: i64,
    pub(crate) what: String,
    pub(crate) name: String,
    pub(crate) count: i64,
}

/// Adds up what a report says.
pub(super) async fn note(
    transaction: &mut Transaction<'_>,
    key: &KeyId,
    report: &Report,
) -> Result<(), Error> {
    match &report.event {
        Event::Changed { package, to: Some(version), .. } => {
            add(transaction, report, "installed", &format!("{package} {version}"), 1).await
        }
        Event::Power { power: Power::Off } => {
            set_off(transaction, key, report.at.as_second()).await?;
            add(transaction, report, "off", "", 1).await
        }
        Event::Power { power: Power::On } => {
            let off: Option<i64> = sqlx::query("SELECT last_off FROM machines WHERE key_id = $1")
                .bind(key.as_str())
                .fetch_optional(&mut **transaction)
                .await?
                .map(|row| row.try_get("last_off"))
                .transpose()?;
            let Some(off) = off.filter(|off| *off > 0) else { return Ok(()) };
            set_off(transaction, key, 0).await?;
            // No more than a day: whoever is away in the holidays would have switched off by hand.
            let seconds = (report.at.as_second() - off).clamp(0, DAY);
            add(transaction, report, "off-seconds", "", seconds).await
        }
        Event::Power { power: Power::StayedOn { why } } => {
            add(transaction, report, "stayed-on", why, 1).await
        }
        _ => Ok(()),
    }
}

async fn set_off(transaction: &mut Transaction<'_>, key: &KeyId, at: i64) -> Result<(), Error> {
    sqlx::query("UPDATE machines SET last_off = $2 WHERE key_id = $1")
        .bind(key.as_str())
        .bind(at)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn add(
    transaction: &mut Transaction<'_>,
    report: &Report,
    what: &str,
    name: &str,
    count: i64,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO daily (college, day, what, name, count) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (college, day, what, name) DO UPDATE SET count = daily.count + excluded.count",
    )
    .bind(report.college.as_str())
    .bind(report.at.as_second().div_euclid(DAY))
    .bind(what)
    .bind(name)
    .bind(count)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

impl State {
    /// What was added up since a day, of a college or of all, in the order of days.
    pub(crate) async fn daily(&self, college: Option<&SiteId>, since: Instant) -> Result<Vec<Daily>, Error> {
        let rows = sqlx::query(
            "SELECT college, day, what, name, count FROM daily WHERE day >= $1 AND ($2 = '' OR college = $2) ORDER BY day, college, what, name",
        )
        .bind(since.as_second().div_euclid(DAY))
        .bind(college.map_or("", |college| college.as_str()))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Daily {
                    college: row.try_get("college")?,
                    day: row.try_get("day")?,
                    what: row.try_get("what")?,
                    name: row.try_get("name")?,
                    count: row.try_get("count")?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use mirabelle_fleet::SignedReport;
    use mirabelle_keys::SigningKey;

    use super::*;
    use crate::fleet::state::EMBEDDED;

    /// A machine's days: evening off at 18:00, on at 8:00; once it stayed on.
    #[tokio::test]
    async fn evenings_and_installations_add_up_by_day() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(EMBEDDED, directory.path()).await.unwrap();
        let (key, college) = (SigningKey::generate(), "57001".parse::<SiteId>().unwrap());
        let at = |day: i64, hour: i64| Instant::from_second((20_000 + day) * DAY + hour * 3600).unwrap();
        let changed = |to: &str| Event::Changed {
            package: "hello".parse().unwrap(),
            from: None,
            to: Some(to.parse().unwrap()),
        };
        let power = |power| Event::Power { power };
        let events = [
            (at(0, 8), Event::Enrolled { key: Box::new(key.public()) }),
            (at(0, 8), power(Power::On)),
            (at(0, 9), changed("1.0")),
            (at(0, 18), power(Power::Off)),
            (at(1, 8), power(Power::On)),
            (at(1, 18), power(Power::StayedOn { why: "in use".to_owned() })),
            (at(2, 18), power(Power::Off)),
            // Holidays count for a day.
            (at(20, 8), power(Power::On)),
            (at(20, 9), changed("2.0")),
        ];
        let lines: Vec<String> = (1..)
            .zip(events)
            .map(|(number, (at, event))| {
                let machine = Some("b12-01".parse().unwrap());
                let report = Report { at, college: college.clone(), event, machine, number };
                SignedReport::sign(&report, &key).unwrap().to_line().unwrap()
            })
            .collect();
        for _ in 0..2 {
            state.take(&college, &lines.join("\n"), at(21, 0)).await.unwrap();
        }
        let said = |daily: &[Daily]| -> Vec<String> {
            let word = |one: &Daily| format!("{} {} {} {}", one.day - 20_000, one.what, one.name, one.count);
            daily.iter().map(word).collect()
        };
        let all = state.daily(None, Instant::UNIX_EPOCH).await.unwrap();
        assert_eq!(
            said(&all),
            [
                "0 installed hello 1.0 1",
                "0 off  1",
                "1 off-seconds  50400",
                "1 stayed-on in use 1",
                "2 off  1",
                "20 installed hello 2.0 1",
                "20 off-seconds  86400",
            ]
        );
        let other = "57002".parse().unwrap();
        assert_eq!(state.daily(Some(&other), Instant::UNIX_EPOCH).await.unwrap(), []);
        assert_eq!(state.daily(Some(&college), at(20, 0)).await.unwrap().len(), 2);
    }
}
