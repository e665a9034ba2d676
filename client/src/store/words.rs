//! Words for people: in French and in English, without jargon. Reasons are those that decisions recorded; nothing is guessed here.

use jiff::ZonedDateTime;
use jiff::tz::TimeZone;
use mirabelle_manifests::{Asker, Instant, Reason, Text};

use super::view::{Field, Language, Notice, Phase, Standing, Task, TaskVerb, Trouble, WhoMay};

impl Language {
    /// One of two texts: none is ever missing in one language.
    pub(super) fn pick<'a>(self, french: &'a str, english: &'a str) -> &'a str {
        match self {
            Self::French => french,
            Self::English => english,
        }
    }

    /// The same, of a pair.
    fn either(self, both: (&'static str, &'static str)) -> &'static str {
        self.pick(both.0, both.1)
    }

    pub(super) fn of(self, text: &Text) -> &str {
        self.pick(&text.fr, &text.en)
    }

    /// As `lang` has it.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::French => "fr",
            Self::English => "en",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::French => Self::English,
            Self::English => Self::French,
        }
    }

    /// "12 Mo".
    pub(super) fn bytes(self, bytes: u64) -> String {
        let (mut unit, mut tenths) = (0, bytes.saturating_mul(10));
        while tenths >= 9_995 && unit < 4 {
            (unit, tenths) = (unit + 1, tenths.div_ceil(1000));
        }
        let unit = self.pick(["o", "ko", "Mo", "Go", "To"][unit], ["B", "kB", "MB", "GB", "TB"][unit]);
        if tenths < 100 && tenths % 10 != 0 {
            format!("{}{}{}\u{a0}{unit}", tenths / 10, self.pick(",", "."), tenths % 10)
        } else {
            format!("{}\u{a0}{unit}", tenths / 10)
        }
    }

    /// "environ 3 minutes": an estimate, rounded to what it is worth.
    pub(super) fn duration(self, seconds: u64) -> String {
        let (count, french, english) = match seconds {
            0..=9 => return self.pick("quelques secondes", "a few seconds").to_owned(),
            10..=89 => (seconds.div_ceil(10) * 10, "secondes", "seconds"),
            90..=5399 => (seconds.div_ceil(60), "minutes", "minutes"),
            _ => (seconds.div_ceil(3600), "heures", "hours"),
        };
        format!("{} {count} {}", self.pick("environ", "about"), self.pick(french, english))
    }

    /// "mardi 1er décembre à 10 h 00".
    pub(super) fn when(self, at: Instant, zone: &TimeZone) -> String {
        let at = at.to_zoned_datetime(zone.clone());
        let time = match self {
            Self::French => format!("à {} h {:02}", at.hour(), at.minute()),
            Self::English => format!("at {}:{:02}", at.hour(), at.minute()),
        };
        format!("{} {time}", self.day_of(&at))
    }

    /// "mardi 1er décembre 2026", the year where it is another.
    pub(super) fn day(self, at: Instant, zone: &TimeZone) -> String {
        let at = at.to_zoned_datetime(zone.clone());
        format!("{} {}", self.day_of(&at), at.year())
    }

    fn day_of(self, at: &ZonedDateTime) -> String {
        const DAYS: [(&str, &str); 7] = [
            ("lundi", "Monday"),
            ("mardi", "Tuesday"),
            ("mercredi", "Wednesday"),
            ("jeudi", "Thursday"),
            ("vendredi", "Friday"),
            ("samedi", "Saturday"),
            ("dimanche", "Sunday"),
        ];
        const MONTHS: [(&str, &str); 12] = [
            ("janvier", "January"),
            ("février", "February"),
            ("mars", "March"),
            ("avril", "April"),
            ("mai", "May"),
            ("juin", "June"),
            ("juillet", "July"),
            ("août", "August"),
            ("septembre", "September"),
            ("octobre", "October"),
            ("novembre", "November"),
            ("décembre", "December"),
        ];
        let place = |number: i8| usize::try_from(number - 1).unwrap_or(0);
        let (day, month) =
            (DAYS[place(at.weekday().to_monday_one_offset()) % 7], MONTHS[place(at.month()) % 12]);
        match (self, at.day()) {
            (Self::French, 1) => format!("{} 1er {}", day.0, month.0),
            (Self::French, number) => format!("{} {number} {}", day.0, month.0),
            (Self::English, number) => format!("{} {number} {}", day.1, month.1),
        }
    }

    /// How it stands, in a word or three.
    pub(super) fn standing(self, standing: &Standing) -> String {
        let text = match standing {
            Standing::Offered => self.pick("Disponible", "Available"),
            Standing::ForTeachers => self.pick("Pour les enseignants", "For teachers"),
            Standing::Busy(task) => return self.task(task),
            Standing::Coming { .. } => self.pick("Arrive bientôt", "Coming soon"),
            Standing::Here => self.pick("Installé", "Installed"),
            Standing::Newer { .. } => self.pick("Mise à jour prête", "Update available"),
            Standing::Leaving { .. } => self.pick("Va être retiré", "To be removed"),
            Standing::Restart => self.pick("Redémarrage nécessaire", "Restart needed"),
            Standing::Blocked(_) => self.pick("Pas possible ici", "Not possible here"),
        };
        text.to_owned()
    }

    /// What is being done, and how far it is.
    pub(super) fn task(self, task: &Task) -> String {
        match (&task.phase, task.verb) {
            (Phase::Queued { before: 0 }, _) => self.pick("Commence", "Starting").to_owned(),
            (Phase::Queued { before }, _) => {
                format!(
                    "{} ({before} {})",
                    self.pick("En attente", "Waiting"),
                    self.pick("avant", "before it")
                )
            }
            (Phase::Fetching { done, total, .. }, _) => {
                format!("{} {}\u{a0}%", self.pick("Téléchargement", "Downloading"), percent(*done, *total))
            }
            (Phase::Installing, TaskVerb::Remove) => self.pick("Suppression", "Removing").to_owned(),
            (Phase::Installing, _) => self.pick("Installation", "Installing").to_owned(),
            (Phase::Done, TaskVerb::Remove) => self.pick("Retiré", "Removed").to_owned(),
            (Phase::Done, TaskVerb::GoBack) => {
                self.pick("Version précédente remise", "Previous version is back").to_owned()
            }
            (Phase::Done, TaskVerb::Update) => self.pick("Mis à jour", "Updated").to_owned(),
            (Phase::Done, TaskVerb::Install) => self.pick("Installé", "Installed").to_owned(),
            (Phase::Cancelled, _) => self.pick("Annulé", "Cancelled").to_owned(),
            (Phase::Failed { .. }, _) => self.pick("N’a pas abouti", "Did not succeed").to_owned(),
        }
    }

    pub(super) fn known_computers(self, count: usize) -> String {
        let one = ("ordinateur connu dans cette salle", "computer known in this room");
        self.counted(count, one, ("ordinateurs connus dans cette salle", "computers known in this room"))
    }

    pub(super) fn computers_without_room(self, count: usize) -> String {
        let one = ("manque de place sur son disque", "has too little room on its disk");
        self.counted(count, one, ("manquent de place sur leur disque", "have too little room on their disk"))
    }

    /// In French, none is singular.
    fn counted(self, count: usize, one: (&str, &str), many: (&str, &str)) -> String {
        let french = if count < 2 { one.0 } else { many.0 };
        let english = if count == 1 { one.1 } else { many.1 };
        format!("{count} {}", self.pick(french, english))
    }

    pub(super) fn verb(self, verb: TaskVerb) -> &'static str {
        self.either(match verb {
            TaskVerb::Install => ("Installer", "Install"),
            TaskVerb::Update => ("Mettre à jour", "Update"),
            TaskVerb::Remove => ("Retirer", "Remove"),
            TaskVerb::GoBack => ("Revenir à la version précédente", "Go back to the previous version"),
        })
    }

    pub(super) fn who(self, who: WhoMay) -> &'static str {
        self.either(match who {
            WhoMay::Everybody => ("Présent sur tous les ordinateurs", "On every computer"),
            WhoMay::Anyone => ("Tout le monde peut l’installer", "Anyone can install it"),
            WhoMay::Teachers => ("Les enseignants peuvent l’installer", "Teachers can install it"),
            WhoMay::Nobody => ("Personne ne peut l’installer ici", "Nobody can install it here"),
        })
    }

    /// A reason, as a teacher would put it.
    #[expect(clippy::too_many_lines, reason = "a sentence for each reason that there is")]
    pub(super) fn reason(self, reason: &Reason, zone: &TimeZone) -> String {
        let when = |at: &Instant| self.when(*at, zone);
        let both = |french: String, english: String| match self {
            Self::French => french,
            Self::English => english,
        };
        let plain = |french: &str, english: &str| self.pick(french, english).to_owned();
        match reason {
            Reason::Assigned { mode, .. } => {
                use mirabelle_manifests::AssignmentMode as Mode;
                match mode {
                    Mode::Required => plain(
                        "Le département l’installe sur tous les ordinateurs concernés.",
                        "The département installs it on every computer concerned.",
                    ),
                    Mode::Available => plain(
                        "Le département le propose à tout le monde ici.",
                        "The département offers it to everyone here.",
                    ),
                    Mode::AvailableToTeachers => plain(
                        "Le département le propose aux enseignants ici.",
                        "The département offers it to teachers here.",
                    ),
                    Mode::Blocked => plain(
                        "Le département ne le propose pas ici.",
                        "The département does not offer it here.",
                    ),
                    Mode::Removed => {
                        plain("Le département le retire d’ici.", "The département removes it from here.")
                    }
                }
            }
            Reason::Overrules { .. } => plain(
                "Une règle plus précise pour cette salle ou ce collège s’applique.",
                "A closer rule for this room or college applies.",
            ),
            Reason::PinEnded { until, .. } => both(
                format!("Une version était imposée jusqu’au {}.", when(until)),
                format!("A version was fixed until {}.", when(until)),
            ),
            Reason::Target { version, .. } => both(
                format!("La version prévue ici est la {version}."),
                format!("The version meant for here is {version}."),
            ),
            Reason::AskedFor => {
                plain("Quelqu’un l’a demandé sur cet ordinateur.", "Somebody asked for it on this computer.")
            }
            Reason::Deadline { deadline } => both(
                format!("Il doit être là au plus tard {}.", when(deadline)),
                format!("It must be here by {}.", when(deadline)),
            ),
            Reason::RingOpen { .. } => plain(
                "C’est au tour de cet ordinateur de recevoir cette version.",
                "It is this computer’s turn to get this version.",
            ),
            Reason::KeptOnPurpose { until, newest, .. } => both(
                format!(
                    "Quelqu’un garde cette version exprès jusqu’au {} ; la version {newest} viendra ensuite.",
                    when(until)
                ),
                format!(
                    "Somebody keeps this version on purpose until {}; version {newest} comes afterwards.",
                    when(until)
                ),
            ),
            Reason::RequiredBy { by } => {
                let names: Vec<&str> = by.iter().map(mirabelle_manifests::PackageName::as_str).collect();
                both(
                    format!("Il est nécessaire à : {}.", names.join(", ")),
                    format!("It is needed by: {}.", names.join(", ")),
                )
            }
            Reason::UpToDate => plain("Tout est à jour.", "Everything is up to date."),
            Reason::Missing => {
                plain("Il n’est pas encore sur cet ordinateur.", "It is not on this computer yet.")
            }
            Reason::OtherInstalled { .. } => {
                plain("Une autre version est sur cet ordinateur.", "Another version is on this computer.")
            }
            Reason::OnlyOffered => plain(
                "Il est proposé, et personne ne l’a demandé ici.",
                "It is offered, and nobody asked for it here.",
            ),
            Reason::TeachersOnly { .. } => plain("Il est réservé aux enseignants.", "It is for teachers."),
            Reason::NotDeployed { .. } => plain(
                "Le rectorat l’a approuvé, mais il n’est pas proposé dans ce collège.",
                "The rectorat approved it, but it is not offered in this college.",
            ),
            Reason::Blocked => {
                plain("Il n’est pas autorisé sur cet ordinateur.", "It is not allowed on this computer.")
            }
            Reason::TakenAway => plain(
                "Le département le retire de cet ordinateur.",
                "The département removes it from this computer.",
            ),
            Reason::NoRelease { .. } => {
                plain("Il n’existe pas pour cet ordinateur.", "It does not exist for this computer.")
            }
            Reason::NotApproved { .. } => plain(
                "Cette version attend l’approbation du rectorat.",
                "This version awaits the rectorat’s approval.",
            ),
            Reason::Paused { since, .. } => both(
                format!("Le département l’a mis en pause depuis {} : un problème est examiné.", when(since)),
                format!(
                    "The département has paused it since {}: a problem is being looked into.",
                    when(since)
                ),
            ),
            Reason::Quarantined { since, .. } => both(
                format!("Cette version n’a pas fonctionné ici {} ; l’ancienne a été remise.", when(since)),
                format!("This version did not work here {}; the earlier one was put back.", when(since)),
            ),
            Reason::HeldBack { .. } => plain(
                "Quelqu’un est revenu de cette version sur cet ordinateur.",
                "Somebody went back from this version on this computer.",
            ),
            Reason::RingClosed { opens, .. } => both(
                format!("Cette version arrive ici {}.", when(opens)),
                format!("This version reaches this computer {}.", when(opens)),
            ),
            Reason::Older { .. } => plain(
                "La version prévue est plus ancienne que celle qui est là.",
                "The version meant for here is older than the one that is here.",
            ),
            Reason::Unresolvable { .. } => plain(
                "Il ne va pas avec un autre logiciel de cet ordinateur.",
                "It does not go together with other software on this computer.",
            ),
            Reason::NoLongerRequired => {
                plain("Plus rien n’en a besoin ici.", "Nothing here needs it any more.")
            }
            Reason::TooLarge { needed, free, .. } => both(
                format!(
                    "Le disque n’a pas assez de place : il faut {}, et {} sont libres.",
                    self.bytes(*needed),
                    self.bytes(*free)
                ),
                format!(
                    "The disk has too little room: {} are needed, and {} are free.",
                    self.bytes(*needed),
                    self.bytes(*free)
                ),
            ),
        }
    }

    /// Who can do something about it.
    pub(super) fn who_can_unblock(self, reason: &Reason) -> &'static str {
        let (french, english) = match reason {
            Reason::TeachersOnly { .. } => (
                "Un enseignant peut l’installer en ouvrant sa session ici.",
                "A teacher can install it by signing in here.",
            ),
            Reason::NotDeployed { .. } | Reason::Blocked | Reason::TakenAway => (
                "L’équipe informatique du département peut le proposer ici.",
                "The département’s IT team can offer it here.",
            ),
            Reason::NotApproved { .. } => (
                "Le rectorat doit l’approuver ; il vient alors de lui-même.",
                "The rectorat has to approve it; then it comes by itself.",
            ),
            Reason::Paused { .. } => (
                "L’équipe du département lève la pause ; il n’y a rien à faire ici.",
                "The département’s team ends the pause; there is nothing to do here.",
            ),
            Reason::Quarantined { .. } => (
                "Une version suivante viendra d’elle-même ; un administrateur peut réessayer celle-ci.",
                "A later version comes by itself; an administrator can try this one again.",
            ),
            Reason::HeldBack { .. } | Reason::Older { .. } => (
                "Un administrateur de cet ordinateur peut changer cela.",
                "An administrator of this computer can change that.",
            ),
            Reason::RingClosed { .. } | Reason::KeptOnPurpose { .. } => (
                "Il suffit d’attendre : cela se fait tout seul.",
                "It only takes time: it happens by itself.",
            ),
            Reason::Unresolvable { .. } => (
                "Retirer l’autre logiciel, ou demander à l’équipe du département.",
                "Remove the other software, or ask the département’s team.",
            ),
            Reason::TooLarge { .. } => (
                "Libérer de la place sur le disque, puis réessayer.",
                "Make room on the disk, then try again.",
            ),
            Reason::NoRelease { .. } => (
                "L’équipe du département sait s’il existe pour d’autres ordinateurs.",
                "The département’s team knows whether it exists for other computers.",
            ),
            _ => ("Il n’y a rien à faire.", "There is nothing to do."),
        };
        match self {
            Self::French => french,
            Self::English => english,
        }
    }

    pub(super) fn asker(self, asker: Asker) -> &'static str {
        self.either(match asker {
            Asker::Anyone => ("sans session", "not signed in"),
            Asker::Teacher => ("enseignant", "teacher"),
            Asker::Administrator => ("administrateur de cet ordinateur", "administrator of this computer"),
        })
    }

    pub(super) fn notice(self, notice: &Notice, zone: &TimeZone) -> String {
        let text = match notice {
            Notice::Begun => self.pick(
                "C’est noté : l’avancement est sur cette page.",
                "Noted: the progress is on this page.",
            ),
            Notice::Ordered => self.pick("La commande est enregistrée.", "The order is recorded."),
            Notice::OrderCancelled => self.pick("La commande est annulée.", "The order is cancelled."),
            Notice::Forgotten => {
                self.pick("Tout ce qui était gardé est effacé.", "All that was kept is erased.")
            }
            Notice::FollowKept => self.pick("Votre choix est enregistré.", "Your choice is recorded."),
            Notice::SignedIn => self.pick("Votre session est ouverte.", "You are signed in."),
            Notice::SignedOut => self.pick("Votre session est fermée.", "You are signed out."),
            Notice::Opened => self.pick("L’application s’ouvre.", "The application is opening."),
            Notice::CannotOpen => self.pick(
                "L’application n’a pas pu s’ouvrir sur ce bureau.",
                "The application could not be opened on this desktop.",
            ),
            Notice::Released => self.pick("Les mises à jour reprennent.", "Updates go on."),
            Notice::Kept { until } => {
                let until = self.day(*until, zone);
                return format!(
                    "{} {until}.",
                    self.pick("Cette version est gardée jusqu’au", "This version is kept until")
                );
            }
        };
        text.to_owned()
    }

    /// What is wrong, and what to do.
    pub(super) fn trouble(self, trouble: Trouble) -> &'static str {
        let (french, english) = match trouble {
            Trouble::NodeSilent => (
                "Le serveur du collège ne répond pas. Ce qui était connu reste affiché ; réessayez dans quelques minutes.",
                "The college’s server does not answer. What was known is still shown; try again in a few minutes.",
            ),
            Trouble::ProviderSilent => (
                "Le service de connexion ne répond pas. Un code de secours fonctionne aussi sans lui.",
                "The sign-in service does not answer. An offline code works without it.",
            ),
            Trouble::SignInRefused => (
                "La connexion n’a pas été acceptée. Recommencez ; si cela persiste, contactez l’équipe du département.",
                "The sign-in was not accepted. Try again; if it persists, contact the département’s team.",
            ),
            Trouble::SignInOver => (
                "Cette connexion a expiré ou a déjà servi. Recommencez.",
                "This sign-in has expired or was used already. Begin again.",
            ),
            Trouble::CodeUnknown => (
                "Ce code n’est pas reconnu, ou sa durée est passée.",
                "This code is not known, or its time is over.",
            ),
            Trouble::TooManyAttempts => {
                ("Trop d’essais. Patientez dix minutes.", "Too many attempts. Wait ten minutes.")
            }
            Trouble::NeedsSignIn => (
                "Ouvrez votre session d’enseignant : le compte de cet ordinateur ne suffit pas pour une salle.",
                "Sign in as a teacher: an account of this computer is not enough for a room.",
            ),
            Trouble::NotHerCollege => (
                "Ce n’est pas permis : vous n’enseignez pas dans ce collège, ou ce n’est pas à vous.",
                "That is not allowed: you do not teach at this college, or it is not yours.",
            ),
            Trouble::LinkCut => (
                "La liaison du collège est coupée : cela demande le département. Réessayez plus tard.",
                "The college’s link is down: this needs the département. Try again later.",
            ),
            Trouble::Forged => (
                "Ce formulaire n’est plus valable. Revenez à la page et recommencez.",
                "This form is no longer valid. Go back to the page and try again.",
            ),
            Trouble::NotFound => ("Cette page n’existe pas.", "There is no such page."),
            Trouble::NoSession => (
                "Ouvrez le magasin depuis le menu des applications de cet ordinateur.",
                "Open the store from the applications menu of this computer.",
            ),
            Trouble::Inside => (
                "Quelque chose n’a pas fonctionné. Réessayez ; l’équipe du département peut lire le journal.",
                "Something went wrong. Try again; the département’s team can read the log.",
            ),
        };
        match self {
            Self::French => french,
            Self::English => english,
        }
    }

    pub(super) fn field(self, field: Field) -> &'static str {
        self.either(match field {
            Field::College => ("Choisissez un collège.", "Choose a college."),
            Field::Room => {
                ("Donnez le nom de la salle, par exemple B12.", "Give the room’s name, for example B12.")
            }
            Field::Package => ("Choisissez une application.", "Choose an application."),
            Field::When => ("Donnez un jour et une heure à venir.", "Give a day and an hour to come."),
            Field::KeepUntil => {
                ("Donnez un jour à venir, dans moins d’un an.", "Give a day to come, within a year.")
            }
            Field::Code => ("Un code a seize lettres et chiffres.", "A code has sixteen letters and digits."),
        })
    }
}

/// How much of it, in a hundred; never more.
pub(super) fn percent(done: u64, total: u64) -> u64 {
    (done.min(total) * 100).checked_div(total).unwrap_or(0)
}

/// The name of a category, subject or level; as it is written, where nobody has named it.
pub(super) fn kind(language: Language, name: &str) -> &str {
    let known = match name {
        "Development" => ("Programmation", "Programming"),
        "Education" => ("Apprendre", "Learning"),
        "Graphics" => ("Image et dessin", "Pictures and drawing"),
        "AudioVideo" => ("Son et vidéo", "Sound and video"),
        "Office" => ("Bureautique", "Office"),
        "Science" => ("Sciences", "Science"),
        "Utility" => ("Utilitaires", "Utilities"),
        "Network" => ("Internet", "Internet"),
        "Game" => ("Jeux", "Games"),
        "Music" => ("Musique", "Music"),
        "Languages" => ("Langues", "Languages"),
        "mathematics" => ("Mathématiques", "Mathematics"),
        "french" => ("Français", "French"),
        "history-geography" => ("Histoire-géographie", "History and geography"),
        "life-sciences" => ("Sciences de la vie et de la Terre", "Life and Earth sciences"),
        "physics-chemistry" => ("Physique-chimie", "Physics and chemistry"),
        "technology" => ("Technologie", "Technology"),
        "arts" => ("Arts plastiques", "Visual arts"),
        "music" => ("Éducation musicale", "Music"),
        "sport" => ("EPS", "Physical education"),
        "languages" => ("Langues vivantes", "Modern languages"),
        "latin-greek" => ("Langues anciennes", "Classical languages"),
        "library" => ("Documentation (CDI)", "School library"),
        "6e" => ("Sixième", "Year 7 (6e)"),
        "5e" => ("Cinquième", "Year 8 (5e)"),
        "4e" => ("Quatrième", "Year 9 (4e)"),
        "3e" => ("Troisième", "Year 10 (3e)"),
        _ => return name,
    };
    language.pick(known.0, known.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_days_are_written_as_people_write_them() {
        let zone = TimeZone::get("Europe/Paris").unwrap();
        let at: Instant = "2026-12-01T09:00:00Z".parse().unwrap();
        assert_eq!(Language::French.when(at, &zone), "mardi 1er décembre à 10 h 00");
        assert_eq!(Language::English.when(at, &zone), "Tuesday 1 December at 10:00");
        assert_eq!(Language::French.day(at, &zone), "mardi 1er décembre 2026");
        for (bytes, french) in [
            (0, "0\u{a0}o"),
            (999, "999\u{a0}o"),
            (1_500, "1,5\u{a0}ko"),
            (12_000_000, "12\u{a0}Mo"),
            (3_400_000_000, "3,4\u{a0}Go"),
        ] {
            assert_eq!(Language::French.bytes(bytes), french);
        }
        assert_eq!(Language::English.bytes(1_500), "1.5\u{a0}kB");
        for (seconds, french) in [
            (3, "quelques secondes"),
            (42, "environ 50 secondes"),
            (100, "environ 2 minutes"),
            (7000, "environ 2 heures"),
        ] {
            assert_eq!(Language::French.duration(seconds), french);
        }
    }

    #[test]
    fn nothing_is_more_than_whole() {
        assert_eq!((percent(0, 0), percent(5, 4), percent(1, 3)), (0, 100, 33));
    }
}
