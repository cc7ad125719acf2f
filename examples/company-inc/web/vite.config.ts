import react from '@vitejs/plugin-react';
import { loadEnv } from 'vite';
import { defineConfig } from 'vitest/config';

export default defineConfig(({ mode }) => {
  // While developing, the API runs beside Vite; API_URL names it.
  const { API_URL = 'http://127.0.0.1:8000' } = loadEnv(mode, '.', 'API_');
  const proxy = { '/api': API_URL };
  return {
    plugins: [react()],
    server: { proxy },
    preview: { proxy },
    build: { chunkSizeWarningLimit: 600 },
    test: { environment: 'jsdom', setupFiles: './src/setup-tests.ts', restoreMocks: true },
  };
});
