//! Templates and settings.

use chancery::{TemplatePatch, TemplateType};
use serde_json::json;

use super::{Meter, count};
use crate::support::{new_template, user};

pub async fn measure(meter: &mut Meter) {
    let setup = meter.setup.clone();
    let owner = user(&setup).await.id;
    let new = || new_template(Some(owner));
    let kept = setup.templates().create_template(new()).await.unwrap().id;

    count!(meter, templates().create_template(new()));
    count!(meter, templates().get_by_id(kept));
    count!(meter, templates().get_template(owner, TemplateType::Email));
    count!(meter, templates().list_by_user(owner, 10, 0));
    count!(meter, templates().list_defaults(TemplateType::Blog, 10));
    count!(meter, templates().update(kept, TemplatePatch::default()));
    count!(meter, templates().delete(kept));

    count!(meter, config().set_value("theme", &json!("dark"), None));
    count!(meter, config().get_value("theme"));
    count!(meter, config().get("theme"));
    count!(meter, config().list(10, 0));
    count!(meter, config().delete("theme"));
}
