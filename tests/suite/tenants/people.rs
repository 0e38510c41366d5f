//! Users, preferences, sessions; templates and settings.

use chancery::{
    Constraint, Error, NewUserPreferences, TemplatePatch, UserPatch, UserPreferencesPatch,
};
use serde_json::json;

use super::HOUR;
use super::methods::{Case, Rule, case};
use crate::support::{new_template, new_user, token_hash};

pub fn cases(cases: &mut Vec<Case>) {
    case!(cases, Service, |w| UserRepository::create(new_user()));
    case!(cases, Service, |w| UserRepository::create_with_preferences(
        new_user(),
        NewUserPreferences::default()
    ));
    case!(cases, |w| UserRepository::get_by_id(w.user.id));
    case!(cases, |w| UserRepository::get_by_email(&w.user.email));
    case!(cases, |w| UserRepository::update(w.user.id, UserPatch::default()));
    case!(cases, |w| UserRepository::touch_last_login(w.user.id));
    case!(cases, |w| UserRepository::deactivate(w.user.id));
    case!(cases, |w| UserRepository::delete(w.user.id));

    // The owner has some.
    cases.push(Case {
        name: "UserPreferencesRepository::create",
        call: |conn, w| {
            Box::pin(async move {
                let preferences = chancery::UserPreferencesRepository::new(conn);
                match preferences.create(w.user.id, NewUserPreferences::default()).await {
                    Err(Error::Conflict(Constraint::UserPreferencesUserIdKey)) => Ok(1),
                    created => created.map(|_| panic!("there were none")),
                }
            })
        },
        rule: Rule::Owner,
        owned: None,
    });
    case!(cases, |w| UserPreferencesRepository::get_by_user(w.user.id));
    case!(cases, |w| UserPreferencesRepository::update(w.user.id, UserPreferencesPatch::default()));

    case!(cases, |w| SessionRepository::create(w.user.id, &token_hash(), w.began));
    case!(cases, |w| SessionRepository::create_for(w.user.id, &token_hash(), HOUR));
    case!(cases, |w| SessionRepository::create_with_token(w.user.id, HOUR, Some(HOUR)));
    case!(cases, |w| SessionRepository::authenticate(w.token.expose()));
    case!(cases, |w| SessionRepository::rotate(w.token.expose()));
    case!(cases, |w| SessionRepository::revoke(w.token.expose()));
    case!(cases, |w| SessionRepository::get_by_id(w.session.id));
    case!(cases, |w| SessionRepository::get_by_token(&w.session.token_hash));
    case!(cases, |w| SessionRepository::extend(&w.session.token_hash, HOUR));
    case!(cases, |w| SessionRepository::list_by_user(w.user.id, 10, 0));
    case!(cases, |w| SessionRepository::delete(w.session.id));
    case!(cases, |w| SessionRepository::delete_by_user(w.user.id));
    case!(cases, |w| SessionRepository::delete_expired());

    case!(cases, |w| TemplateRepository::create_template(new_template(Some(w.user.id))));
    case!(cases, Service, |w| TemplateRepository::create_template(new_template(None)));
    case!(cases, |w| TemplateRepository::get_by_id(w.template.id));
    case!(cases, |w| TemplateRepository::get_template(w.user.id, w.template_type()));
    case!(cases, |w| TemplateRepository::list_by_user(w.user.id, 10, 0));
    case!(cases, |w| TemplateRepository::list_defaults(w.template_type(), 10));
    case!(cases, |w| TemplateRepository::update(w.template.id, TemplatePatch::default()));
    case!(cases, |w| TemplateRepository::delete(w.template.id));

    case!(cases, Service, |w| ConfigRepository::set_value("theme", &json!("light"), None));
    case!(cases, Everybody, |w| ConfigRepository::get_value("theme"));
    case!(cases, Everybody, |w| ConfigRepository::get("theme"));
    case!(cases, Everybody, |w| ConfigRepository::list(10, 0));
    case!(cases, Service, |w| ConfigRepository::delete("theme"));
}
