//! Where a field belongs that stands in the wrong message: above, below or beside it.

use std::rc::Rc;

use super::{
    super::{
        message::Msg,
        schema::{Field, Kind, MessageType},
    },
    Decoder, find_field,
};

impl Decoder<'_> {
    /// A sentence on where a key belongs that is no field of this message, when a message near it has a
    /// field of that name.
    pub(super) fn place_hint(&self, key: &str, message: &Msg) -> Option<String> {
        let parents = self.parents.borrow();
        // The last one is the message itself.
        let mut above = parents.iter().rev().skip(1);
        let parent = above.next();
        if let Some(path) = self.below(&message.ty, key, None) {
            return Some(format!(
                "`{key}` belongs one level deeper: write `{}`",
                nested(&path, key)
            ));
        }
        if self.in_configuration(key, message) {
            return Some(format!("`{key}` belongs under `typed_config`, next to `@type`"));
        }
        if let Some(parent) = parent {
            if has(parent, key) {
                return Some(up(parent, key));
            }
            if let Some(path) = self.below(parent, key, Some(message.ty.as_ref())) {
                let name = parent.short_name();
                return Some(format!(
                    "`{key}` belongs beside this, in `{name}`: write `{}`",
                    nested(&path, key)
                ));
            }
        }
        if let Some(ancestor) = above.find(|ty| has(ty, key)) {
            return Some(up(ancestor, key));
        }
        self.two_below(&message.ty, key)
            .map(|path| format!("`{key}` belongs deeper: write `{}`", nested(&path, key)))
    }

    /// The field of a message whose own message has the key.
    fn below(
        &self,
        ty: &MessageType,
        key: &str,
        except: Option<&MessageType>,
    ) -> Option<Vec<Step>> {
        let has_it = |field: &&Field| {
            self.message_of(field).is_some_and(|inner| {
                except.is_none_or(|except| except.full_name != inner.full_name) && has(&inner, key)
            })
        };
        usable(ty).find(has_it).map(|field| vec![Step::of(field)])
    }

    /// The same, one level further down.
    fn two_below(&self, ty: &MessageType, key: &str) -> Option<Vec<Step>> {
        usable(ty).find_map(|field| {
            let inner = self.message_of(field)?;
            let rest = self.below(&inner, key, None)?;
            Some([Step::of(field)].into_iter().chain(rest).collect())
        })
    }

    /// True when the extension that a message names has the field.
    fn in_configuration(&self, key: &str, message: &Msg) -> bool {
        let name = message.peek("name").map_or("", |set| set.item.text());
        let of_name = self.extension_type(name).and_then(|name| self.schema.message(name));
        message.ty.position("typed_config").is_some() && of_name.is_some_and(|ty| has(&ty, key))
    }

    fn message_of(&self, field: &Field) -> Option<Rc<MessageType>> {
        let Kind::Message(name) = field.kind else { return None };
        if name.starts_with("google.protobuf.") {
            return None;
        }
        self.schema.message(name).filter(|ty| !ty.is_map_entry)
    }
}

/// A field on the way down.
struct Step {
    name: &'static str,
    repeated: bool,
}

impl Step {
    fn of(field: &Field) -> Self {
        Self { name: field.name, repeated: field.repeated }
    }
}

/// Fields that Envoy still wants.
fn usable(ty: &MessageType) -> impl Iterator<Item = &Field> {
    ty.fields.iter().filter(|field| !field.deprecated && !field.disallowed)
}

fn has(ty: &MessageType, key: &str) -> bool {
    find_field(ty, key).and_then(|index| ty.fields.get(index)).is_some_and(|f| !f.disallowed)
}

fn up(ty: &MessageType, key: &str) -> String {
    let name = ty.short_name();
    if name == "Bootstrap" {
        return format!("`{key}` belongs at the top of the file, without indentation");
    }
    format!("`{key}` belongs further up, in `{name}`: check the indentation")
}

/// `a: [{ b: { key: … } }]`.
fn nested(path: &[Step], key: &str) -> String {
    path.iter().rev().fold(format!("{key}: …"), |inner, step| {
        if step.repeated {
            format!("{}: [{{ {inner} }}]", step.name)
        } else {
            format!("{}: {{ {inner} }}", step.name)
        }
    })
}
