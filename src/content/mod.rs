//! Texts that the application fills in.

mod template;

pub use template::{
    NewTemplate, Template, TemplateId, TemplatePatch, TemplateRepository, TemplateSummary,
    TemplateType,
};
