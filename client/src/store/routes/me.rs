//! Signing in and out, and what is kept of a person.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::{Query, State};
use axum::http::Response;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use mirabelle_identity::{Action, Follow, OfflineCode};
use mirabelle_manifests::SignIn;
use zeroize::Zeroizing;

use super::{Page, Sent, Visitor, html, see};
use crate::agent::socket::Request;
use crate::store::Store;
use crate::store::activity::Asked;
use crate::store::pages;
use crate::store::person::SignedPerson;
use crate::store::sign_in::Returned;
use crate::store::view::{FOLLOWS, Me, Notice, Standing, TaskVerb, Trouble};

pub(in crate::store) async fn sign_in(State(store): State<Arc<Store>>, visitor: Visitor) -> Page {
    // The page's policy names whom its form leads to.
    if let Ok(sign_in) = store.sign_in_of(&visitor).await {
        store.provider(&sign_in).await;
    }
    store.sign_in_page(&visitor, None).await
}

pub(in crate::store) async fn to_provider(State(store): State<Arc<Store>>, sent: Sent) -> Page {
    let sign_in = store.sign_in_of(&sent.visitor).await?;
    match store.begin_sign_in(&sent.visitor.session, &sign_in).await {
        Ok(address) => see(&address),
        Err(trouble) => store.sign_in_page(&sent.visitor, Some(trouble)).await,
    }
}

pub(in crate::store) async fn back_from_provider(
    State(store): State<Arc<Store>>,
    visitor: Visitor,
    Query(returned): Query<Returned>,
) -> Page {
    let sign_in = store.sign_in_of(&visitor).await?;
    match store.finish_sign_in(&visitor.session, &sign_in, returned).await {
        Ok(()) => store.welcome(&visitor).await,
        Err(trouble) => store.sign_in_page(&visitor, Some(trouble)).await,
    }
}

pub(in crate::store) async fn with_code(State(store): State<Arc<Store>>, sent: Sent) -> Page {
    let sign_in = store.sign_in_of(&sent.visitor).await?;
    match store.sign_in_with_code(&sent.visitor.session, &sign_in, sent.field("code")).await {
        Ok(()) => store.welcome(&sent.visitor).await,
        Err(trouble) => store.sign_in_page(&sent.visitor, Some(trouble)).await,
    }
}

/// Out here, and with the provider as well, where it has a place for that (OpenID Connect RP-Initiated Logout 1.0).
pub(in crate::store) async fn sign_out(State(store): State<Arc<Store>>, sent: Sent) -> Page {
    let session = &sent.visitor.session;
    let person = session.sign_out();
    session.note(Notice::SignedOut);
    let ends_at = store.known_provider().and_then(|provider| provider.end_session_endpoint);
    let back = format!("http://{}/", store.address());
    let address =
        ends_at.zip(person.as_ref().and_then(|person| person.id_token())).and_then(|(ends_at, token)| {
            let parameters = [("id_token_hint", token), ("post_logout_redirect_uri", &back)];
            reqwest::Url::parse_with_params(&ends_at, parameters).ok()
        });
    see(address.as_ref().map_or("/", reqwest::Url::as_str))
}

pub(in crate::store) async fn show(State(store): State<Arc<Store>>, visitor: Visitor) -> Page {
    let Some(person) = visitor.session.person() else { return see("/sign-in") };
    let known = store.choices_of(&person).await;
    store.me_page(&visitor, &person, known.err()).await
}

/// Everything that is kept of her, as it is kept.
pub(in crate::store) async fn export(State(store): State<Arc<Store>>, visitor: Visitor) -> Page {
    let Some(person) = visitor.session.person() else { return see("/sign-in") };
    let choices = match store.choices_of(&person).await {
        Ok(choices) => choices,
        Err(trouble) => return store.trouble(&visitor, trouble).await,
    };
    let all = serde_json::json!({ "pseudonym": person.pseudonym(), "choices": choices });
    let mut response = Response::new(Body::from(serde_json::to_vec_pretty(&all).unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let name = HeaderValue::from_static("attachment; filename=\"mirabelle.json\"");
    response.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(response)
}

pub(in crate::store) async fn act(
    State(store): State<Arc<Store>>,
    Path(action): Path<String>,
    sent: Sent,
) -> Page {
    let visitor = &sent.visitor;
    let Some(person) = visitor.session.person() else { return see("/sign-in") };
    let done = match action.as_str() {
        "follow" => {
            let asked = FOLLOWS.iter().find(|(_, value)| *value == sent.field("follow"));
            let Some((follow, _)) = asked else { return store.trouble(visitor, Trouble::Forged).await };
            let kept = store.change_choices(&person, Action::Follow { follow: *follow }).await;
            kept.map(|_| Notice::FollowKept)
        }
        "forget" => store.change_choices(&person, Action::Forget).await.map(|_| Notice::Forgotten),
        "offline" => match store.make_code(&person).await {
            Ok(code) => {
                visitor.session.show_code(code);
                return see("/me");
            }
            Err(trouble) => Err(trouble),
        },
        _ => return store.trouble(visitor, Trouble::NotFound).await,
    };
    match done {
        Ok(notice) => {
            visitor.session.note(notice);
            see("/me")
        }
        Err(trouble) => store.me_page(visitor, &person, Some(trouble)).await,
    }
}

impl Store {
    async fn sign_in_of(&self, visitor: &Visitor) -> Result<SignIn, Response<Body>> {
        match self.stock(visitor.session.asker()).await.ok().and_then(|stock| stock.sign_in.clone()) {
            Some(sign_in) => Ok(sign_in),
            None => Err(self.say(visitor, Trouble::NotFound).await),
        }
    }

    async fn sign_in_page(&self, visitor: &Visitor, trouble: Option<Trouble>) -> Page {
        let found = self.find(visitor).await?;
        let mut response = html(&pages::sign_in(&self.frame(visitor, &found), trouble))?;
        if let Some(trouble) = trouble {
            *response.status_mut() = super::status(trouble);
        }
        Ok(response)
    }

    async fn me_page(&self, visitor: &Visitor, person: &SignedPerson, trouble: Option<Trouble>) -> Page {
        let found = self.find(visitor).await?;
        let choices = person.choices();
        let shown = Me {
            pseudonym: person.pseudonym().to_string(),
            choices: &choices,
            code: visitor.session.take_code().map(|code| code.to_string()),
            offline_days: found.stock.sign_in.as_ref().map_or(0, |sign_in| sign_in.offline_days),
            trouble,
        };
        html(&pages::me(&self.frame(visitor, &found), &shown))
    }

    /// She has just signed in: what she chose elsewhere is offered, or comes, if she said so.
    async fn welcome(&self, visitor: &Visitor) -> Page {
        visitor.session.note(Notice::SignedIn);
        let Some(person) = visitor.session.person() else { return see("/sign-in") };
        let choices = self.choices_of(&person).await.unwrap_or_default();
        if choices.follow == Follow::Install
            && let Ok(found) = self.find(visitor).await
        {
            visitor.session.note(Notice::SignedIn);
            for item in found.items.iter().filter(|item| item.followed && item.standing == Standing::Offered)
            {
                let (package, title) = (item.package.clone(), item.title.clone());
                let request = Request::Install { packages: vec![package.clone()] };
                self.activity.ask(Asked { verb: TaskVerb::Install, package, title, request }, visitor.who());
            }
        }
        see("/")
    }

    /// A new offline code, which counts from now on in place of the last.
    async fn make_code(&self, person: &SignedPerson) -> Result<Zeroizing<String>, Trouble> {
        let code = OfflineCode::generate();
        self.tell(person, Action::EnableOffline { key: code.key().public() }, self.college()).await?;
        Ok(code.shown())
    }
}
