// Code generated from proto/tidewire/v1/tidewire.proto by proto/client-codec.mjs (make gen). DO NOT EDIT.
export {};
