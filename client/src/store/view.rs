//! What the store's pages show: values that were found elsewhere, ready to be put into words.
//!
//! Pages hold no rule. What may be done with a package is said once, by its [`Standing`], and every page shows that one.

use jiff::tz::TimeZone;
use mirabelle_identity::{Assessment, Choices, Follow, OrderStatus};
use mirabelle_manifests::{
    Asker, Digest, Instant, MachineId, PackageName, Reason, SiteId, StorePage, Tag, Text, Version,
};

/// A language of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Language {
    #[default]
    French,
    English,
}

/// What every page knows.
pub(crate) struct Frame<'a> {
    pub(crate) language: Language,
    /// The path of this page with its query: where a change of the language leads back to.
    pub(crate) path: &'a str,
    /// Goes with every form.
    pub(crate) csrf: &'a str,
    pub(crate) now: Instant,
    /// The college's.
    pub(crate) zone: TimeZone,
    pub(crate) college: &'a SiteId,
    pub(crate) machine: &'a MachineId,
    pub(crate) person: Person,
    /// True when somebody can sign in: the deployment says how.
    pub(crate) can_sign_in: bool,
    /// Tasks that wait or are under way.
    pub(crate) active: usize,
    /// Updates that are due.
    pub(crate) updates: usize,
    /// Since when nothing was heard of the node; what was known then is shown.
    pub(crate) silent_since: Option<Instant>,
    /// What was done by the form that led here.
    pub(crate) notice: Option<Notice>,
}

/// Who sits there, as far as the store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// On whose behalf she asks.
    pub(crate) asker: Asker,
    pub(crate) how: SignedIn,
}

/// How the store knows who sits there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SignedIn {
    /// It does not.
    No,
    /// By her account on this machine: a group of teachers, or its administrator.
    Account,
    /// With the provider.
    Provider {
        until: Instant,
        /// What the provider calls her, for her own screen alone; kept nowhere.
        name: Option<String>,
        /// Where she teaches.
        colleges: Vec<SiteId>,
    },
    /// With an offline code.
    Code { until: Instant, colleges: Vec<SiteId> },
}

/// What a form came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It was begun: the task is on the page of activity.
    Begun,
    Ordered,
    OrderCancelled,
    Forgotten,
    FollowKept,
    SignedIn,
    SignedOut,
    Opened,
    /// Nothing on this desktop can open it.
    CannotOpen,
    Kept {
        until: Instant,
    },
    Released,
}

/// A package in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) package: PackageName,
    pub(crate) title: Text,
    pub(crate) summary: Text,
    /// The release that is here, or else the one that would come.
    pub(crate) version: Version,
    pub(crate) categories: Vec<String>,
    pub(crate) subjects: Vec<Tag>,
    pub(crate) levels: Vec<Tag>,
    pub(crate) keywords: Vec<String>,
    /// The file `/media/<sha256>`.
    pub(crate) icon: Option<Digest>,
    /// The same, of what its own page says.
    pub(crate) page: Option<Digest>,
    pub(crate) licence: String,
    pub(crate) download_bytes: u64,
    pub(crate) installed_bytes: u64,
    /// When the rectorat approved this release.
    pub(crate) approved: Option<Instant>,
    /// Approved less than a month ago, in its first version here.
    pub(crate) is_new: bool,
    pub(crate) who: WhoMay,
    pub(crate) standing: Standing,
    /// What is installed, whatever is to become of it.
    pub(crate) installed: Option<Installed>,
    /// Chosen by this person on another computer, and not here yet.
    pub(crate) followed: bool,
}

/// Who may install it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhoMay {
    /// It comes by itself.
    Everybody,
    /// Whoever asks.
    Anyone,
    Teachers,
    Nobody,
}

/// What is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) version: Version,
    pub(crate) sequence: u64,
    pub(crate) bytes: u64,
    /// It has something to open.
    pub(crate) opens: bool,
    /// This person may take it away.
    pub(crate) removable: bool,
    /// The approved version before, to go back to.
    pub(crate) previous: Option<(u64, Version)>,
    /// Somebody keeps it on purpose until then, in place of a newer one.
    pub(crate) kept_until: Option<Instant>,
}

/// How a package stands for whoever sits there: the one thing that every page shows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// May be installed now.
    Offered,
    /// May be installed by a teacher who signs in.
    ForTeachers,
    /// Something was asked for and is under way, or waits for its turn.
    Busy(Task),
    /// It comes by itself: at the latest then, if that is said.
    Coming { deadline: Option<Instant>, prepared: bool },
    /// It is here, and as it should be.
    Here,
    /// It is here, and a newer version comes or may be had at once.
    Newer { version: Version, deadline: Option<Instant>, prepared: bool },
    /// It is here, and is taken away by the deployment.
    Leaving { deadline: Option<Instant> },
    /// It counts once the machine was restarted.
    Restart,
    /// It cannot be had, or not now; if something is here, it stays as it is.
    Blocked(Reason),
}

/// What somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) package: PackageName,
    pub(crate) title: Text,
    pub(crate) verb: TaskVerb,
    pub(crate) phase: Phase,
    pub(crate) asked: Instant,
    pub(crate) ended: Option<Instant>,
    /// This person may cancel or repeat it.
    pub(crate) own: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskVerb {
    Install,
    Update,
    Remove,
    /// To the version before.
    GoBack,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// So many are before it.
    Queued {
        before: usize,
    },
    /// Bytes; the rate and what remains are measured.
    Fetching {
        done: u64,
        total: u64,
        seconds_left: Option<u64>,
    },
    Installing,
    Done,
    Cancelled,
    /// With the reason, where one was recorded; else with what was said.
    Failed {
        reason: Option<Reason>,
        said: String,
    },
}

/// The package's own page.
pub(crate) struct PackageView<'a> {
    pub(crate) item: &'a Item,
    /// What its packager says of it.
    pub(crate) said: StorePage,
    /// What fetching it costs; unknown when the node does not say.
    pub(crate) cost: Option<Cost>,
    /// Every reason on the way to its standing, the last one decided.
    pub(crate) reasons: &'a [Reason],
    pub(crate) history: Vec<Past>,
    /// The newest version that is approved: what keeping an older one forgoes.
    pub(crate) newest: Option<Version>,
}

/// What fetching a release costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// The college has it: only its own network is used.
    pub(crate) in_college: bool,
    /// What still crosses the college's link.
    pub(crate) wan_bytes: u64,
    /// How long it takes, installing included; unknown where nothing was measured.
    pub(crate) seconds: Option<u64>,
}

/// Something that happened here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) at: Instant,
    pub(crate) package: PackageName,
    pub(crate) title: Text,
    pub(crate) what: Happened,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Installed(Version),
    Updated { from: Version, to: Version },
    WentBack { from: Version, to: Version },
    Removed(Version),
}

/// A list of packages under a heading: a shelf of the first page, a category, what was found.
pub(crate) struct Shelf<'a> {
    pub(crate) title: ShelfTitle,
    pub(crate) items: Vec<&'a Item>,
}

pub(crate) enum ShelfTitle {
    Featured,
    New,
    FollowedHere,
    All,
    Category(String),
    Subject(Tag),
    Level(Tag),
}

/// The first page.
pub(crate) struct Discover<'a> {
    pub(crate) shelves: Vec<Shelf<'a>>,
    pub(crate) categories: Vec<(String, usize)>,
    pub(crate) subjects: Vec<(Tag, usize)>,
    pub(crate) levels: Vec<(Tag, usize)>,
}

/// A part of a long list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageOf {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) pages: usize,
}

/// The page of room orders.
pub(crate) struct Rooms<'a> {
    /// Packages that can be ordered, and rooms that are known at each college where she teaches.
    pub(crate) packages: Vec<&'a Item>,
    pub(crate) colleges: &'a [SiteId],
    pub(crate) orders: Vec<OrderStatus>,
    /// What she has filled in, and what it comes to.
    pub(crate) draft: Option<Draft>,
    /// Why the orders of a college cannot be shown now.
    pub(crate) trouble: Option<Trouble>,
}

/// A filled-in form of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) college: String,
    pub(crate) room: String,
    pub(crate) package: String,
    /// As a form's `date` and `time` give them.
    pub(crate) date: String,
    pub(crate) time: String,
    /// Keep the version that is the newest now, until this date, if it is not empty.
    pub(crate) keep_until: String,
    /// Names of fields that cannot be read.
    pub(crate) wrong: Vec<Field>,
    pub(crate) assessment: Option<Assessment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    College,
    Room,
    Package,
    When,
    KeepUntil,
    Code,
}

/// Why something cannot be done now, beside the reasons of decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The node does not answer.
    NodeSilent,
    /// The provider does not answer: an offline code helps.
    ProviderSilent,
    /// The provider said no, or what it said is not to be believed.
    SignInRefused,
    /// It took too long, or was used already: begin again.
    SignInOver,
    /// The code is not known, or its time is over.
    CodeUnknown,
    /// Too many attempts: in a few minutes again.
    TooManyAttempts,
    /// Only who signed in with the provider or a code can order: an account of this machine is not enough.
    NeedsSignIn,
    /// She does not teach there.
    NotHerCollege,
    /// The college's link is cut: this needs the département.
    LinkCut,
    /// A form without its secret, or from elsewhere.
    Forged,
    /// There is no such page.
    NotFound,
    /// Only from the desktop that opened it.
    NoSession,
    /// This went wrong inside.
    Inside,
}

/// The page about herself.
pub(crate) struct Me<'a> {
    /// Her pseudonym.
    pub(crate) pseudonym: String,
    pub(crate) choices: &'a Choices,
    /// An offline code that was made just now: shown once.
    pub(crate) code: Option<String>,
    /// What the offline code counts for, in days.
    pub(crate) offline_days: u16,
    pub(crate) trouble: Option<Trouble>,
}

/// What may be done with choices, for forms.
pub(crate) const FOLLOWS: [(Follow, &str); 3] =
    [(Follow::Offer, "offer"), (Follow::Install, "install"), (Follow::Never, "never")];
