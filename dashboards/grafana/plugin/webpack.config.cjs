// Builds the frontend as the AMD module that Grafana loads. What Grafana 9.4 to
// the newest share with plugins stays outside; JSX is classic, because 9.4 does
// not share react/jsx-runtime.
const path = require('node:path');
const Copy = require('copy-webpack-plugin');

const shared = ['@grafana/data', '@grafana/ui', '@grafana/runtime', 'react', 'react-dom', 'rxjs', 'lodash', '@emotion/css'];

module.exports = {
  mode: 'production',
  context: path.join(__dirname, 'src'),
  entry: { module: './module.ts' },
  target: ['web', 'es2015'],
  devtool: false,
  externals: shared,
  resolve: { extensions: ['.ts', '.tsx', '.js'] },
  module: {
    rules: [
      {
        test: /\.tsx?$/,
        use: { loader: 'ts-loader', options: { transpileOnly: true, compilerOptions: { noEmit: false } } }, // npm run check has the types
      },
    ],
  },
  output: { path: path.join(__dirname, 'dist'), filename: '[name].js', library: { type: 'amd' }, publicPath: '', clean: { keep: /gpx_/ } },
  performance: { hints: false },
  plugins: [new Copy({ patterns: [{ from: 'plugin.json' }, { from: 'img', to: 'img' }, { from: '../README.md' }, { from: '../../../../LICENSE', to: 'LICENSE', toType: 'file' }] })],
};
