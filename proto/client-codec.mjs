// A plugin of protoc for the browser client: from the wire contract it writes the
// types of the frames (frames.ts) and the tables that codec.ts encodes and decodes
// with (tables.ts). Run by scripts/gen.
//
// A table is a text, so that it costs few bytes in a browser: messages separated by
// ';', the frame first, each a row of fields in the order of their numbers, from 1 on. A
// field is its name, its kind and a mark that says how often it occurs. The kind is
// one of `kinds`, left out if it is 0, or for a message its place in the table plus
// the number of kinds. A number that is not in use has no name.
import { readFileSync } from "node:fs";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  CodeGeneratorRequestSchema,
  CodeGeneratorResponseSchema,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";

// Kinds of scalars, and their types in JavaScript. Half a kind is its wire type, or more than it.
const kinds = [
  { name: "NUMBER", is: "number", types: [Type.UINT32, Type.UINT64] },
  { name: "BOOL", is: "boolean", types: [Type.BOOL] },
  { name: "FIXED64", is: "number", types: [Type.FIXED64] },
  { name: "DOUBLE", is: "number", types: [Type.DOUBLE] },
  { name: "STRING", is: "string", types: [Type.STRING] },
  { name: "BYTES", is: "Uint8Array", types: [Type.BYTES] },
];
const marks = { single: ",", optional: "?", repeated: "*", oneof: "|" };

// What each side of codec.ts can do, beyond messages that stand alone: kinds by their
// numbers, alone, repeated and optional.
const able = {
  client: { single: [0, 1, 2, 3, 4, 5], repeated: [4], optional: [0, 1, 3] },
  server: { single: [0, 1, 2, 4, 5], repeated: [0, 4], optional: [] },
};

// Names that would hide one of JavaScript, or mean something else in the client.
const renamed = { Message: "WireMessage", Error: "WireError" };
// What the client has no use for: each name costs every page its bytes. The tests of the
// codec have the same list. Message.origin has 64 random bits, which JavaScript cannot hold.
const left = [
  "ServerFrame.unsubscribed",
  "Connect.ref",
  "Connect.capabilities",
  "Welcome.ref",
  "Welcome.session",
  "Welcome.server",
  "Welcome.subject",
  "Limits.payload_bytes",
  "Limits.publish_messages",
  "Limits.subscriptions",
  "Subscribed.resumed",
  "Subscribed.behind",
  "Subscribed.generation",
  "Subscribed.created",
  "OffsetRange.through",
  "Ack.up_to",
  "Acked.term",
  "Acked.settled",
  "RefusedRange.partition",
  "RefusedRange.from",
  "RefusedRange.through",
  "Gap.term",
  "GoAway.reason",
  "Refresh.ref",
  "Refreshed.ref",
  "Message.origin",
];
// What a broker ignores in frames from clients.
const brokers = ["Message.publisher", "Message.offset", "Message.time"];

const header =
  "// Code generated from proto/tidewire/v1/tidewire.proto by proto/client-codec.mjs (make gen). DO NOT EDIT.\n";

/** Reads the messages of a file, with their comments. */
function readMessages(file) {
  const comments = new Map(file.sourceCodeInfo.location.map((at) => [at.path.join(), at.leadingComments]));
  return new Map(
    file.messageType.map((message, i) => {
      const fields = message.field.map((field, j) =>
        readField(field, message, comments.get([4, i, 2, j].join())),
      );
      const kept = fields.filter((field) => !left.includes(`${message.name}.${field.proto}`));
      return [
        message.name,
        {
          name: message.name,
          comment: comments.get([4, i].join()),
          fields: kept.sort((a, b) => a.number - b.number),
        },
      ];
    }),
  );
}

function readField(field, message, comment) {
  const kind = kinds.findIndex(({ types }) => types.includes(field.type));
  if (kind < 0 && field.type !== Type.MESSAGE) {
    throw new Error(`${message.name}.${field.name} has a type that codec.ts does not know: teach it.`);
  }
  if (!/^[a-z]+$/i.test(field.jsonName)) {
    throw new Error(`${message.name}.${field.name}: a table has room for letters in names and nothing else.`);
  }
  return {
    name: field.jsonName,
    proto: field.name,
    number: field.number,
    kind,
    message: field.type === Type.MESSAGE ? field.typeName.split(".").at(-1) : "",
    count: countOf(field),
    comment,
  };
}

function countOf(field) {
  if (field.label === FieldDescriptorProto_Label.REPEATED) return "repeated";
  if (field.proto3Optional) return "optional";
  return Object.hasOwn(field, "oneofIndex") ? "oneof" : "single";
}

/** The messages that a frame can hold, each behind those that hold it, the frame first. */
function reachable(messages, name, above = []) {
  if (above.includes(name)) {
    throw new Error(`${name} holds itself: codec.ts would need a bound for the depth.`);
  }
  if (!messages.has(name)) {
    throw new Error(`${name} is declared within a message: codec.ts knows no maps, and the plugin no such names.`);
  }
  const below = messages.get(name).fields.filter((field) => field.message);
  const all = below.flatMap((field) => reachable(messages, field.message, [...above, name]));
  return [name, ...all.filter((each, i) => all.lastIndexOf(each) === i)];
}

function table(messages, side, names) {
  const row = (name) => {
    const fields = messages
      .get(name)
      .fields.filter((field) => side === "server" || !brokers.includes(`${name}.${field.proto}`));
    const last = fields.at(-1)?.number ?? 0;
    return Array.from({ length: last }, (_, i) => {
      const field = fields.find((one) => one.number === i + 1);
      return field ? cell(side, name, field, names) : marks.single;
    }).join("");
  };
  return names.map(row).join(";");
}

function cell(side, message, field, names) {
  if (!field.message && !able[side][field.count]?.includes(field.kind)) {
    throw new Error(
      `${message}.${field.proto}: codec.ts cannot do this kind of field for frames of a ${side}: teach it, then the list in client-codec.mjs.`,
    );
  }
  const kind = field.message ? kinds.length + names.indexOf(field.message) : field.kind;
  return field.name + (kind || "") + marks[field.count];
}

/** A comment of the contract as one of TypeScript. */
function doc(comment, indent) {
  const lines = (comment ?? "")
    .trimEnd()
    .split("\n")
    .map((line) => line.trim());
  if (lines.length === 1) return lines[0] === "" ? "" : `${indent}/** ${lines[0]} */\n`;
  return `${indent}/**\n${lines.map((line) => `${indent} * ${line}`.trimEnd()).join("\n")}\n${indent} */\n`;
}

function type(message) {
  return renamed[message] ?? message;
}

function declaration(message, received) {
  const lines = message.fields.map((field) => {
    // What servers send has its defaults, so clients that send the same kind of message may leave something out.
    const partial = field.message && !received.includes(message.name) && received.includes(field.message);
    const one = field.message
      ? partial
        ? `Partial<${type(field.message)}>`
        : type(field.message)
      : kinds[field.kind].is;
    const absent =
      !received.includes(message.name) ||
      field.count === "optional" ||
      (field.message && field.count !== "repeated");
    return `${doc(field.comment, "  ")}  ${field.name}${absent ? "?" : ""}: ${field.count === "repeated" ? `readonly ${one}[]` : one};\n`;
  });
  return `${doc(message.comment, "")}export interface ${type(message.name)} {\n${lines.join("")}}\n`;
}

function generate(file) {
  const messages = readMessages(file);
  const sent = reachable(messages, "ClientFrame");
  const received = reachable(messages, "ServerFrame");
  const all = [...messages.values()].filter(({ name }) => sent.includes(name) || received.includes(name));
  const constants = [
    ...kinds.map(({ name }, i) => [name, i]),
    ["MESSAGE", kinds.length],
    ...Object.entries(marks).map(([name, mark]) => [name.toUpperCase(), JSON.stringify(mark)]),
  ];
  const tables = [
    "// Kinds of fields, and marks: proto/client-codec.mjs says how a table is written.",
    ...constants.map(([name, value]) => `export const ${name} = ${value};`),
    "",
    "/** What clients send. */",
    `export const client = ${JSON.stringify(table(messages, "client", sent))};`,
    "",
    "/** What servers send. */",
    `export const server = ${JSON.stringify(table(messages, "server", received))};`,
  ];
  return {
    "frames.ts": `${header}\n${all.map((message) => declaration(message, received)).join("\n")}`,
    "tables.ts": `${header}\n${tables.join("\n")}\n`,
  };
}

function answer(request) {
  try {
    const file = request.protoFile.find(({ name }) => request.fileToGenerate.includes(name));
    if (file.package !== "tidewire.v1") return { file: [] }; // what nodes say to each other
    return { file: Object.entries(generate(file)).map(([name, content]) => ({ name, content })) };
  } catch (err) {
    return { error: err.stack };
  }
}

const request = fromBinary(CodeGeneratorRequestSchema, readFileSync(0));
process.stdout.write(
  toBinary(
    CodeGeneratorResponseSchema,
    create(CodeGeneratorResponseSchema, { supportedFeatures: 1n, ...answer(request) }),
  ),
);
