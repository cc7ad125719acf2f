import ms from "ms";

const greeting: string = `shop, open for ${ms(3_600_000)} on Bun ${Bun.version}`;

Bun.serve({
  hostname: process.env.HOST,
  port: process.env.PORT,
  fetch: () => new Response(greeting),
});
