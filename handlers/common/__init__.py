"""What several flows share: types of fields, pages, errors, deadlines, frames that are pushed to sockets."""
