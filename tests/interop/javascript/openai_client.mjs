// OpenAI's SDK for JavaScript against an appliance. Usage: openai_client.mjs BASE_URL MODEL, with the token in OPENAI_API_KEY.
// Prints one JSON object of what it got. NODE_EXTRA_CA_CERTS names the authority of TLS.
import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, maxRetries: 0 });
const asked = [{ role: "user", content: "What is Casemate?" }];
const weather = [{ role: "user", content: "What is the weather in Rome?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const temperature = 0;

const got = {};
const plain = await client.chat.completions.create({ model, messages: asked, temperature });
got.plain = plain.choices[0].message.content;
got.request = [plain._request_id, plain.id];
const streaming = client.chat.completions.stream({
  model, messages: asked, temperature, stream_options: { include_usage: true },
});
const final = await streaming.finalChatCompletion();
got.streamed = [final.choices[0].message.content, final.usage.completion_tokens];
got.usage = plain.usage.completion_tokens;

const called = [];
const tool = {
  name: "get_weather",
  description: "Get the weather of a city.",
  parse: JSON.parse,
  parameters,
  function: ({ city }) => {
    called.push(city);
    return `Sunny in ${city}`;
  },
};
const runner = client.chat.completions.runTools({
  model, messages: weather, temperature, tools: [{ type: "function", function: tool }],
});
got.after = await runner.finalContent();
got.called = called;

const schema = {
  type: "object",
  properties: { big: { type: "boolean" }, kind: { enum: ["a", "b"] } },
  required: ["big", "kind"],
  additionalProperties: false,
};
const structured = await client.chat.completions.parse({
  model, messages: asked, response_format: { type: "json_schema", json_schema: { name: "small", schema, strict: true } },
});
got.structured = JSON.parse(structured.choices[0].message.content);

const response = await client.responses.create({ model, input: asked[0].content, temperature });
const events = new Set();
const cut = { model, input: asked[0].content, temperature, max_output_tokens: 16, stream: true };
for await (const event of await client.responses.create(cut)) events.add(event.type);
got.response = response.output_text;
got.events = [...events].sort();

const embedded = await client.embeddings.create({ model, input: ["Rome", "Paris"] });
got.embedded = embedded.data.map((one) => [one.embedding.length, Math.round(Math.hypot(...one.embedding) * 1000) / 1000]);
try {
  await client.chat.completions.create({ model: "none", messages: asked });
} catch (error) {
  got.refused = [error.constructor.name, error.status, error.code];
}
console.log(JSON.stringify(got));
