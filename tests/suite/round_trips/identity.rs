//! Users, their preferences and sessions.

use std::time::Duration;

use chancery::{NewUserPreferences, UserPatch, UserPreferencesPatch};
use chrono::Utc;

use super::{Meter, count};
use crate::support::{new_user, token_hash, user};

const HOUR: Duration = Duration::from_secs(3600);

pub async fn measure(meter: &mut Meter) {
    let setup = meter.setup.clone();
    let kept = user(&setup).await;
    let preferences = NewUserPreferences::default;
    let session = async || {
        let owner = user(&setup).await.id;
        setup.sessions().create_for(owner, &token_hash(), HOUR).await.unwrap()
    };

    let token = async || {
        let created = setup.sessions().create_with_token(kept.id, HOUR, Some(HOUR)).await;
        created.unwrap().0
    };

    count!(meter, users().create(new_user()));
    count!(meter, users().create_with_preferences(new_user(), preferences()));
    count!(meter, users().get_by_id(kept.id));
    count!(meter, users().get_by_email(&kept.email));
    count!(meter, users().update(kept.id, UserPatch::default()));
    count!(meter, users().touch_last_login(kept.id));
    count!(meter, users().deactivate(user(&setup).await.id));
    count!(meter, users().delete(user(&setup).await.id));

    count!(meter, user_preferences().create(user(&setup).await.id, preferences()));
    count!(meter, user_preferences().get_by_user(kept.id));
    count!(meter, user_preferences().update(kept.id, UserPreferencesPatch::default()));

    count!(meter, sessions().create(kept.id, &token_hash(), Utc::now()));
    count!(meter, sessions().create_for(kept.id, &token_hash(), HOUR));
    count!(meter, sessions().create_with_token(kept.id, HOUR, Some(HOUR)));
    count!(meter, sessions().authenticate(token().await.expose()));
    count!(meter, sessions().rotate(token().await.expose()));
    count!(meter, sessions().revoke(token().await.expose()));
    count!(meter, sessions().get_by_id(session().await.id));
    count!(meter, sessions().get_by_token(&session().await.token_hash));
    count!(meter, sessions().extend(&session().await.token_hash, HOUR));
    count!(meter, sessions().list_by_user(kept.id, 10, 0));
    count!(meter, sessions().delete(session().await.id));
    count!(meter, sessions().delete_by_user(session().await.user_id));
    count!(meter, sessions().delete_expired());
}
